"""JSON lines of a source: read in bounded memory, checked, with errors that name file and line."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from engine.errors import DataError

MAX_LINE_BYTES = 1024 * 1024
REPORTED = 5
"""Most problems of one line, or of one specification, that its error names."""

_TYPES = ("bool", "float", "int", "str")
"""What pydantic calls the plain alternatives of a field's type; the others are no words."""

ModelT = TypeVar("ModelT", bound=BaseModel)


def read_lines(source: Path) -> Iterator[tuple[int, bytes]]:
    """Yield ``(number, line)`` of the lines that are not blank, numbered from 1.

    Raises:
        DataError: the file cannot be read, or a line is too long.
    """
    number = 0
    try:
        with source.open("rb") as lines:
            while line := lines.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    reason = f"a line may have at most {MAX_LINE_BYTES} bytes"
                    raise DataError(reason, file=source.name, line=number)
                if line.strip():
                    yield number, line
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror}", file=source.name) from error


def read_models(source: Path, model: type[ModelT]) -> Iterator[tuple[int, ModelT]]:
    """Yield ``(number, parsed line)`` of each line that is not blank; raises `DataError`."""
    for number, line in read_lines(source):
        yield number, parse(model, line, file=source.name, line=number)


def parse(
    model: type[ModelT], content: dict[str, Any] | str | bytes, *, file: str, line: int | None
) -> ModelT:
    """Return the checked content; raises `DataError` that names file, line and reason."""
    try:
        if isinstance(content, dict):
            return model.model_validate(content)
        return model.model_validate_json(content)
    except ValidationError as error:
        raise DataError(reason_of(error, model), file=file, line=line) from None


def reason_of(error: ValidationError, model: type[BaseModel]) -> str:
    """Return the first problems of a validation, each with the field that it is about.

    Where a field is unknown, the known ones of ``model``, which was validated, follow.
    """
    parts, known = [], []
    problems = error.errors(include_url=False, include_context=False)
    for problem in problems[:REPORTED]:
        place = problem["loc"]
        field = _field(place)
        if problem["type"] == "extra_forbidden":
            field = ".".join(filter(None, [_field(place[:-1]), _key(place[-1])]))
            known.append(_known(model, place[:-1]))
        message = problem["msg"].removeprefix("Value error, ")
        parts.append(f"{field}: {message}" if field else message)
    more = f"and {len(problems) - REPORTED} more" if len(problems) > REPORTED else ""
    return "; ".join(filter(None, dict.fromkeys([*parts, more, *known])))


def _field(place: tuple[int | str, ...]) -> str:
    """Return the dotted name of a field, without the alternatives of its type that were tried."""
    named = []
    for step in place:
        if step in _TYPES or not _is_word(step):
            break
        named.append(str(step))
    return ".".join(named)


def _key(step: int | str) -> str:
    """Return an unknown key as it came, quoted where it is no word."""
    return str(step) if _is_word(step) else repr(step)


def _is_word(step: int | str) -> bool:
    return re.fullmatch(r"\w+", str(step)) is not None


def _known(model: type[BaseModel], place: tuple[int | str, ...]) -> str:
    """Say which fields the model has at ``place``; nothing where no model of its own is there."""
    found: Any = model
    for step in place:
        fields = getattr(found, "model_fields", {})
        found = fields[step].annotation if step in fields else None
    names = ", ".join(getattr(found, "model_fields", {}))
    where = f"known in {_field(place)} are" if place else "known are"
    return f"{where} {names}" if names else ""


def first_keys(source: Path) -> frozenset[str] | None:
    """Return the keys of the JSON object on the first line; None if there is none."""
    try:
        with source.open("rb") as lines:
            found = json.loads(lines.readline(MAX_LINE_BYTES))
    except (OSError, ValueError):
        return None
    return frozenset(found) if isinstance(found, dict) else None
