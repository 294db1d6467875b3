"""JSON pointers (RFC 6901) from the locations of pydantic's errors.

A location leads through the types that were tried, not through the value alone: pydantic puts the
tag or the name of a union's member between the names of members and the indexes. The types of the
body say which parts these are; the value could not, since a member may have the name of a tag.
"""

import types
from collections.abc import Collection, Iterable, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

Location = tuple[int | str, ...]
_NO_TAG = ("union_tag_invalid", "union_tag_not_found")


def pointer_to(parts: Iterable[int | str], start: str = "#") -> str:
    """Return the pointer that leads from ``start`` over names and indexes."""
    escaped = (str(part).replace("~", "~0").replace("/", "~1") for part in parts)
    return "/".join([start, *escaped])


def pointers_to(
    entries: Sequence[str], at_fault: Collection[str], start: str, detail: str
) -> list[dict[str, str]]:
    """Return a problem pointer to each of ``entries``, a list at ``start``, that is ``at_fault``."""
    return [
        {"pointer": pointer_to([index], start), "detail": detail}
        for index, entry in enumerate(entries)
        if entry in at_fault
    ]


def pointer_of(error: dict[str, Any], body: Any) -> str:
    """Return the pointer to the value of which pydantic's ``error`` tells.

    Args:
        error: one of ``ValidationError.errors()``, with the location from the value on.
        body: the type that the whole value should have had.
    """
    location = _in_value(body, tuple(error["loc"]))
    if error["type"] in _NO_TAG:
        location += (error["ctx"]["discriminator"].strip("'"),)
    return pointer_to(location)


def _in_value(kind: Any, location: Location) -> Location:
    """Return ``location`` without the parts that name members of a union."""
    if not location:
        return ()
    if get_origin(kind) is Annotated:
        return _in_value(get_args(kind)[0], location)
    if get_origin(kind) in (Union, types.UnionType):
        members = [member for member in get_args(kind) if member is not type(None)]
        if len(members) == 1:
            return _in_value(members[0], location)
        return _in_value(_named(members, str(location[0])), location[1:])
    return (location[0], *_in_value(_inner(kind, location[0]), location[1:]))


def _named(members: Sequence[Any], label: str) -> Any:
    """Return the member of a union that pydantic means by ``label``: its tag, or its type's name."""
    for member in members:
        plain = get_args(member)[0] if get_origin(member) is Annotated else member
        name = getattr(get_origin(plain) or plain, "__name__", "")
        if label in _tags(plain) or label.partition("[")[0] == name:
            return plain
    return Any


def _tags(kind: Any) -> list[Any]:
    if not _is_model(kind):
        return []
    kind.model_rebuild()
    literals = (field.annotation for field in kind.model_fields.values())
    return [tag for kind in literals if get_origin(kind) is Literal for tag in get_args(kind)]


def _inner(kind: Any, part: int | str) -> Any:
    """Return the type of what stands in a ``kind`` under the name or index ``part``."""
    if _is_model(kind):
        kind.model_rebuild()  # until then types that are named before they exist stay names
        for name, field in kind.model_fields.items():
            if part in (name, field.alias):
                return field.annotation
        return Any
    return next(iter(get_args(kind)[-1:]), Any)  # of a list its elements, of a dict its values


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
