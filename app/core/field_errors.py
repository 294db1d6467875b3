"""What pydantic found wrong with a request, in words of JSON and with pointers to where."""

from collections.abc import Iterable
from itertools import islice
from typing import Any

from app.core.pointers import pointer_of

MOST_POINTERS = 20
# What pydantic expected, in words of JSON; what came is named by its type alone, never repeated.
_EXPECTED = {
    "model_attributes_type": "an object",
    "dict_type": "an object",
    "list_type": "an array",
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
}
_CAME: dict[type, str] = {
    dict: "an object",
    list: "an array",
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}


def pointers_of(errors: Iterable[Any], body: Any) -> list[dict[str, str]]:
    """Turn pydantic's errors of a request into problem pointers, at most 20, without the input.

    Args:
        errors: their locations begin with ``body``, or with the kind of the parameter.
        body: the type of the request's body.
    """
    return [_pointer(error, body) for error in islice(errors, MOST_POINTERS)]


def _pointer(error: dict[str, Any], body: Any) -> dict[str, str]:
    origin, *location = error["loc"]
    if origin != "body":
        return {"parameter": str([origin, *location][-1]), "detail": error["msg"]}
    return {"pointer": pointer_of({**error, "loc": location}, body), "detail": _reason(error)}


def _reason(error: dict[str, Any]) -> str:
    expected = _EXPECTED.get(error["type"])
    came = _CAME.get(type(error.get("input")))
    if expected is None or came is None:
        return str(error["msg"])
    if error["type"] == "int_type" and came == "a number":
        came = "a fraction or a larger number"
    return f"expected {expected}; {came} came"
