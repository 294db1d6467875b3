"""One registry a kind of component: family, task, method, metric, format.

A component is one file and one registration. Components of other distributions are found
through the entry-point group ``lethe.<kind>`` (for example ``lethe.methods``); see
``docs/extending.md``.
"""

from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from engine.errors import InvalidSpec

T = TypeVar("T")


class Registry(Generic[T]):
    """Components by name.

    Args:
        kind: plural name of the kind, for example ``"methods"``.
        of: what a component of another distribution must be, an instance or a subclass of it.
    """

    def __init__(self, kind: str, of: type | None = None) -> None:
        self.kind = kind
        self._of = of
        self._components: dict[str, T] = {}
        self._discovered = False

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that adds the decorated component under ``name``."""

        def add(component: T) -> T:
            if name in self._components:
                raise InvalidSpec(f"{self.kind}: the name {name!r} is registered twice")
            self._components[name] = component
            return component

        return add

    def get(self, name: str) -> T:
        """Return the component of that name.

        Raises:
            InvalidSpec: there is none; the message lists the known names, or names the
                distribution whose component is broken.
        """
        if name not in self:
            known = ", ".join(sorted(self._components))
            raise InvalidSpec(f"{self.kind}: {name!r} is unknown; known are {known}")
        return self._components[name]

    def __contains__(self, name: object) -> bool:
        # What is part of the engine is found even where another distribution is broken.
        if name not in self._components:
            self._discover()
        return name in self._components

    def __iter__(self) -> Iterator[str]:
        self._discover()
        return iter(sorted(self._components))

    def _discover(self) -> None:
        """Load the components of other distributions, once; a broken one is told every time."""
        if self._discovered:
            return
        self._discovered = True  # a component may ask the registry while it is loaded
        try:
            for entry in entry_points(group=f"lethe.{self.kind}"):
                self._adopt(entry)
        except BaseException:
            self._discovered = False
            raise

    def _adopt(self, entry: EntryPoint) -> None:
        try:
            component = entry.load()
        except Exception as error:  # whatever its module does when it is imported
            reason = f"it cannot be loaded ({type(error).__name__}: {error})"
            raise self._broken(entry, reason) from error
        if self._components.get(entry.name, component) is not component:
            raise self._broken(entry, "another component has this name; give it its own")
        if self._of is not None and not _is_a(component, self._of):
            found = type(component).__name__
            raise self._broken(entry, f"a {self._of.__name__} is expected, and it is a {found}")
        self._components[entry.name] = component

    def _broken(self, entry: EntryPoint, reason: str) -> InvalidSpec:
        place = "an unknown distribution"
        if entry.dist is not None:
            place = f"the distribution {entry.dist.name} {entry.dist.version}"
        return InvalidSpec(
            f"{self.kind}: {entry.name!r} of {place} ({entry.value}): {reason}. Repair or uninstall "
            "that distribution"
        )


def _is_a(component: object, kind: type) -> bool:
    return isinstance(component, kind) or (
        isinstance(component, type) and issubclass(component, kind)
    )
