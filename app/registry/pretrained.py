"""Which pretrained encoders a caller may name: those that are installed with a worker.

A folder or a hub's name would make a worker open whatever a caller points it to.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from app.core.pointers import pointer_to

INSTALLED = ("auto", "minilm")
# A schema's list of those that a field of a configuration can start from.
_OF_FIELD = "x-installed"
_PREFIX, _DIGEST = "pretrained", "_sha256"


def misplaced(
    schema: Mapping[str, Any], config: Mapping[str, Any], pointer: str
) -> Iterator[dict[str, str]]:
    """Yield a pointer to each member of ``config`` that names an encoder of another kind.

    Args:
        schema: of a family's configuration; a field that it gives no `INSTALLED` one has none.
        config: follows it.
        pointer: where it stands.
    """
    for name, member in config.items():
        fitting = schema["properties"].get(name, {}).get(_OF_FIELD, ())
        if _names_encoder(name) and member is not None and member not in fitting:
            known = f"one of {', '.join(fitting)}, or null" if fitting else "null"
            yield {
                "pointer": pointer_to([name], pointer),
                "detail": f"{known} expected: no other model that is installed fits here",
            }


def foreign(value: Any, pointer: str = "#") -> Iterator[dict[str, str]]:
    """Yield a pointer to each encoder in ``value`` that is not `INSTALLED`, at any depth."""
    if isinstance(value, list):
        for number, member in enumerate(value):
            yield from foreign(member, f"{pointer}/{number}")
    if not isinstance(value, dict):
        return
    for name, member in value.items():
        place = pointer_to([name], pointer)
        if _names_encoder(name) and member is not None and member not in INSTALLED:
            yield {"pointer": place, "detail": f"one of {', '.join(INSTALLED)} expected, or null"}
        else:
            yield from foreign(member, place)


def _names_encoder(name: str) -> bool:
    return name.startswith(_PREFIX) and not name.endswith(_DIGEST)
