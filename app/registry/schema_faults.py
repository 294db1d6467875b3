"""What breaks a JSON schema, in words that name the bound and what came.

A schema of the catalogue writes a field that may be null as ``anyOf`` of its type and null. That
"none of the schemas" fits says nothing: the faults of the one that is meant are told instead.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from app.registry.rules import Fault

if TYPE_CHECKING:
    from jsonschema import ValidationError

# What came may be of any length, and stands before the bound.
_MOST_SHOWN = 60
_MOST_MESSAGE = 300
_NULL = {"type": "null"}
_TYPES = {
    "array": "an array",
    "boolean": "true or false",
    "integer": "a whole number",
    "null": "null",
    "number": "a number",
    "object": "an object",
    "string": "text",
}
# Keyword -> words for the bound and what came.
_MESSAGES: dict[str, Callable[[Any, str], str]] = {
    "type": lambda bound, came: f"expected {_types(bound)}; {came} came",
    "enum": lambda bound, came: f"expected one of {', '.join(map(_shown, bound))}; {came} came",
    "const": lambda bound, came: f"expected {_shown(bound)}; {came} came",
    "minimum": lambda bound, came: f"{came} is less than the minimum of {bound}",
    "maximum": lambda bound, came: f"{came} is greater than the maximum of {bound}",
    "exclusiveMinimum": lambda bound, came: f"expected more than {bound}; {came} came",
    "exclusiveMaximum": lambda bound, came: f"expected less than {bound}; {came} came",
    "multipleOf": lambda bound, came: f"{came} is not a multiple of {bound}",
    "minItems": lambda bound, came: f"expected at least {bound} elements; {came} came",
    "maxItems": lambda bound, came: f"expected at most {bound} elements; {came} came",
}


def schema_faults(schema: dict[str, Any], value: dict[str, Any]) -> list[Fault]:
    """Return what of ``value`` breaks ``schema``, by place, and of each place the first fault."""
    from jsonschema import Draft202012Validator  # slow to load

    found: dict[tuple[str | int, ...], Fault] = {}
    for error in Draft202012Validator(schema).iter_errors(value):
        for fault in _faults(error):
            found.setdefault(fault.path, fault)
    return sorted(found.values(), key=lambda fault: [str(part) for part in fault.path])


def _faults(error: "ValidationError", *, nullable: bool = False) -> Iterator[Fault]:
    path, bound = tuple(error.absolute_path), error.validator_value
    if error.validator == "anyOf" and isinstance(bound, list) and _NULL in bound:
        null = bound.index(_NULL)
        inner = [one for one in error.context or () if one.relative_schema_path[0] != null]
        for one in inner:
            yield from _faults(one, nullable=True)
    elif error.validator == "additionalProperties" and isinstance(error.instance, dict):
        yield from _unknown(path, error.instance, error.schema)
    else:
        words = _MESSAGES.get(str(error.validator))
        if error.validator == "type" and nullable:
            bound = [bound, "null"]
        message = words(bound, _shown(error.instance)) if words else error.message
        yield Fault(path, message[:_MOST_MESSAGE])


def _unknown(path: tuple[str | int, ...], given: dict[str, Any], schema: Any) -> Iterator[Fault]:
    known = schema.get("properties", {})
    listed = ", ".join(sorted(known)) or "none"
    for name in given:
        if name not in known:
            yield Fault((*path, name), f"unknown; known are {listed}"[:_MOST_MESSAGE])


def _types(names: str | Iterable[str]) -> str:
    listed = [names] if isinstance(names, str) else names
    return " or ".join(_TYPES.get(name, name) for name in listed)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
