"""How JSON bodies are read: once, here, so that no route meets a value that nothing can keep.

Python reads ``NaN`` and ``Infinity``, which are no JSON (RFC 8259), and turns 1e999 into infinity.
NUL characters fit into no text of PostgreSQL, and half of a surrogate pair is no character that
could be written as UTF-8. JSON can spell all of these, at any depth. Of two members of one name
Python drops the first without a word.

Numbers of one value are one number, however they are spelt: 5.0 and 5e0 are read as 5, as JSON
Schema and canonical JSON (RFC 8785) have it.
"""

import json
import math
import re
from collections.abc import Callable, Coroutine, Iterator
from itertools import islice
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from starlette.types import Scope

from app.core.errors import Invalid, NotFound, Problem, UnsupportedMediaType
from app.core.field_errors import MOST_POINTERS
from app.core.json_members import Members, repeated
from app.core.media_types import require_json
from app.core.pointers import pointer_to
from app.core.problems import BodyRefused, MalformedRequest

_ODD_CHARACTERS = re.compile("[\0\ud800-\udfff]")
# As only an escape can spell them: a JSON text with them as they are is refused anyway.
_ODD_ESCAPES = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
_TEXT = {
    True: "expected text without NUL characters (\\u0000)",
    False: "expected text without lone surrogates (\\ud800 to \\udfff), which are no characters",
}
_NUMBER = "expected a finite number: no NaN, no Infinity, nothing above 1.79e308 in size"
_TWICE = "expected once: the object has this member more than once"
# Up to here every whole number is a double, and every reader of JSON means the same by it.
_MOST_EXACT = 2**53


class Body(BaseModel):
    """Base of the bodies: unknown members are refused, and no value is taken for one of another type.

    Without ``strict`` true would pass for 1, and "5" for 5.
    """

    model_config = ConfigDict(strict=True, extra="forbid")


class JsonRoute(APIRoute):
    """A route whose JSON body is read by `read_json`; every router with bodies has it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler for a request that reads JSON so, where the route has a body."""
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle

        async def handle_json(request: Request) -> Response:
            return await handle(_JsonRequest(request.scope, request.receive))

        return handle_json


class _JsonRequest(Request):
    async def body(self) -> bytes:
        body = await super().body()
        try:
            if body:
                require_json(self.headers)
        except UnsupportedMediaType as error:
            raise BodyRefused(error) from None
        return body

    async def json(self) -> Any:
        return read_json(await self.body())


def read_json(body: bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        BodyRefused: it is no JSON in UTF-8, or has values that nothing can keep, or two members of
            one name.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BodyRefused(
            MalformedRequest(f"The body is no UTF-8 from byte {error.start} on. Send it in UTF-8.")
        ) from None
    try:
        value, is_odd = _parse(text)
        faults = list(islice(_faults(value, ()), MOST_POINTERS)) if is_odd else []
    except json.JSONDecodeError as error:
        raise BodyRefused(_broken(error)) from None
    except RecursionError:
        raise BodyRefused(MalformedRequest("The body is nested too deeply. Send less.")) from None
    if faults:
        detail = "The body has members that cannot be taken; 'errors' says which. Correct them."
        raise BodyRefused(Invalid(detail, pointers=faults))
    return value


def address_refusal(scope: Scope) -> Problem | None:
    """Return why no route can serve a request for this path and query, or None.

    No id has a NUL character, so that a path with one leads nowhere.
    """
    if "\0" in scope["path"]:
        return NotFound("There is nothing here: the path has a NUL character, which no id has.")
    if b"%00" not in scope["query_string"]:
        return None
    query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    at_fault = dict.fromkeys(name for name, value in query if "\0" in name + value)
    return Invalid(
        "The query has NUL characters; 'errors' says where. Leave them out.",
        pointers=[{"parameter": name, "detail": _TEXT[True]} for name in at_fault],
    )


class _NoNumber:
    """Stands in a value where a number was that is none, or is too large to be one."""


class _Repeating(dict[str, Any]):
    """Stands in a value where an object was with two members of one name."""

    def __init__(self, members: Members) -> None:
        super().__init__(members)
        self.repeated = frozenset(repeated(members))


def _parse(text: str) -> tuple[Any, bool]:
    """Return the value of ``text``, and whether there may be something in it to refuse."""
    odd: list[_NoNumber | _Repeating] = []

    def refuse(_: str) -> _NoNumber:
        odd.append(number := _NoNumber())
        return number

    def real(digits: str) -> float | _NoNumber:
        number = float(digits)
        if number.is_integer() and abs(number) <= _MOST_EXACT:
            return int(number)
        return number if math.isfinite(number) else refuse(digits)

    def whole(digits: str) -> int | _NoNumber:
        return int(digits) if math.isfinite(float(digits)) else refuse(digits)

    def made(members: Members) -> dict[str, Any]:
        plain = dict(members)
        if len(plain) == len(members):
            return plain
        odd.append(repeating := _Repeating(members))
        return repeating

    value = json.loads(
        text,
        parse_constant=refuse,
        parse_float=real,
        parse_int=whole,
        object_pairs_hook=made,
    )
    return value, bool(odd) or ("\\u" in text and _ODD_ESCAPES.search(text) is not None)


def _faults(value: Any, path: tuple[int | str, ...]) -> Iterator[dict[str, str]]:
    """Yield a problem pointer to each thing in ``value`` that nothing can keep."""
    if isinstance(value, _NoNumber):
        yield {"pointer": pointer_to(path), "detail": _NUMBER}
    elif isinstance(value, str):
        if odd := _ODD_CHARACTERS.search(value):
            yield {"pointer": pointer_to(path), "detail": _TEXT[odd[0] == "\0"]}
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield from _faults(member, (*path, index))
    elif isinstance(value, dict):
        yield from _member_faults(value, path)


def _member_faults(value: dict[str, Any], path: tuple[int | str, ...]) -> Iterator[dict[str, str]]:
    twice = value.repeated if isinstance(value, _Repeating) else frozenset()
    for name, member in value.items():
        if odd := _ODD_CHARACTERS.search(name):
            # A pointer with the name could not be sent: it leads to the object.
            detail = f"name of a member: {_TEXT[odd[0] == chr(0)]}"
            yield {"pointer": pointer_to(path), "detail": detail}
            continue
        if name in twice:
            yield {"pointer": pointer_to((*path, name)), "detail": _TWICE}
        yield from _faults(member, (*path, name))


def _broken(error: json.JSONDecodeError) -> Problem:
    place = f"{error.msg} at line {error.lineno}, column {error.colno}"
    return Invalid(
        f"The body is no JSON: {place}. Correct it there.",
        pointers=[{"pointer": "#", "detail": place}],
    )
