"""Names that an object of a JSON text has more than once.

RFC 8259 leaves open which value counts, and readers differ: what one of them checks, another
overrides. Nothing here takes such an object.
"""

from collections import Counter
from typing import Any

Members = list[tuple[str, Any]]


class RepeatedMemberError(ValueError):
    """An object has two members of one name."""


def repeated(members: Members) -> list[str]:
    """Return the names that stand more than once among ``members``."""
    return [name for name, count in Counter(name for name, _ in members).items() if count > 1]


def object_of(members: Members) -> dict[str, Any]:
    """Return the object that has ``members``: an ``object_pairs_hook`` of `json.loads`.

    Raises:
        RepeatedMemberError: two have one name.
    """
    made = dict(members)
    if len(made) < len(members):
        raise RepeatedMemberError(f"{repeated(members)[0]}: an object has this member twice")
    return made
