"""Rules between the members of an object, for which JSON Schema has no word.

A schema of the catalogue may have the keyword ``x-multiple-of`` at its top: a list of
``[member, divisor]``. It says that the first member is a positive multiple of the second. Both are
integers or arrays of integers, which are compared element by element; an integer beside an array
goes with each of its elements. A member that is left out has its default, and one that is null, or
has no default, is not compared.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MULTIPLE_OF = "x-multiple-of"


@dataclass(frozen=True)
class Fault:
    """A rule that a value breaks: where in the value, and how.

    Attributes:
        path: names and indexes that lead to the number at fault.
        message: what is wrong, with both numbers.
    """

    path: tuple[str | int, ...]
    message: str


def faults(schema: Mapping[str, Any], value: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield what breaks the rules of ``schema`` in ``value``, which follows it in all else."""
    for name, divisor_name in schema.get(MULTIPLE_OF, ()):
        # What the caller gave is at fault, not a default that the caller may never have seen.
        at_fault = divisor_name if divisor_name in value and name not in value else name
        size, divisor = (_member(schema, value, member) for member in (name, divisor_name))
        for index, one, of in _side_by_side(size, divisor):
            if of < 1 or one < of or one % of:
                is_element = isinstance(divisor if at_fault == divisor_name else size, list)
                yield Fault(
                    path=(at_fault, index) if is_element else (at_fault,),
                    message=f"{name} {one} is no multiple of {divisor_name} {of}",
                )


def _member(schema: Mapping[str, Any], value: Mapping[str, Any], name: str) -> Any:
    return value.get(name, schema["properties"][name].get("default"))


def _side_by_side(size: Any, divisor: Any) -> Iterator[tuple[int, int, int]]:
    """Yield index, number and divisor."""
    if size is None or divisor is None:
        return
    count = max(len(part) if isinstance(part, list) else 1 for part in (size, divisor))
    sizes, divisors = (
        part if isinstance(part, list) else [part] * count for part in (size, divisor)
    )
    for index, (one, of) in enumerate(zip(sizes, divisors, strict=False)):
        yield index, one, of
