"""Which pretrained encoders a caller may name: those that are installed with a worker.

A folder or a hub's name would make a worker open whatever a caller points it to.
"""

from collections.abc import Iterator
from typing import Any

INSTALLED = ("auto", "minilm")
_PREFIX, _DIGEST = "pretrained", "_sha256"


def foreign(value: Any, pointer: str = "#") -> Iterator[dict[str, str]]:
    """Yield a pointer to each encoder in ``value`` that is not `INSTALLED`, at any depth."""
    if isinstance(value, list):
        for number, member in enumerate(value):
            yield from foreign(member, f"{pointer}/{number}")
    if not isinstance(value, dict):
        return
    for name, member in value.items():
        place = f"{pointer}/{name}"
        named = name.startswith(_PREFIX) and not name.endswith(_DIGEST)
        if named and member is not None and member not in INSTALLED:
            yield {"pointer": place, "detail": f"one of {', '.join(INSTALLED)} expected, or null"}
        else:
            yield from foreign(member, place)
