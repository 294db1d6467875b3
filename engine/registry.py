"""One registry a kind of component: family, task, method, metric, format.

A component is one file and one registration. Components of other distributions are found
through the entry-point group ``lethe.<kind>`` (for example ``lethe.methods``).
"""

from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from engine.errors import InvalidSpec

T = TypeVar("T")


class Registry(Generic[T]):
    """Components by name.

    Args:
        kind: plural name of the kind, for example ``"methods"``.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
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
        """Return the component of that name; raises `InvalidSpec` that lists the known names."""
        self._discover()
        try:
            return self._components[name]
        except KeyError:
            known = ", ".join(sorted(self._components))
            raise InvalidSpec(f"{self.kind}: {name!r} is unknown; known are {known}") from None

    def __iter__(self) -> Iterator[str]:
        self._discover()
        return iter(sorted(self._components))

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True
        for entry in entry_points(group=f"lethe.{self.kind}"):
            if entry.name not in self._components:
                self._components[entry.name] = entry.load()
