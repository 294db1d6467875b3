"""Reads the rows of a manifest from JSON lines or Parquet, one at a time: each a row, or why it is none."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from app.core.json_members import repeated
from app.datasets.errors import UnknownManifestFormat
from app.datasets.rows import Row

JSON_LINES = ("application/x-ndjson", "application/jsonl")
PARQUET = "application/vnd.apache.parquet"
MEDIA_TYPES = (*JSON_LINES, PARQUET)
MOST_LINE_BYTES = 4 << 20
_PARQUET_BATCH = 8192
_BOM = b"\xef\xbb\xbf"
# Made once: `json.loads` would make one for each row. Numbers stay text, whose length has no limit.
_COUNT = json.JSONDecoder(object_pairs_hook=len, parse_int=str).decode
_MEMBERS = json.JSONDecoder(object_pairs_hook=list, parse_int=str).decode


def read_rows(source: Path, media_type: str) -> Iterator[tuple[int, Row | str]]:
    """Return an iterator over line and row of ``source``, or line and what is wrong with it.

    Raises:
        UnknownManifestFormat: ``media_type`` is not one of `MEDIA_TYPES`.
    """
    if media_type not in MEDIA_TYPES:
        raise UnknownManifestFormat(
            f"Expected Content-Type to be one of {', '.join(MEDIA_TYPES)}; got "
            f"{media_type or 'none'}."
        )
    return _parquet_rows(source) if media_type == PARQUET else _json_rows(source)


def _json_rows(source: Path) -> Iterator[tuple[int, Row | str]]:
    validate = Row.model_validate_json
    with source.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MOST_LINE_BYTES), b""), 1):
            if len(line) == MOST_LINE_BYTES and not line.endswith(b"\n"):
                yield number, f"the line has more than {MOST_LINE_BYTES} bytes"
                return
            if line.isspace():
                continue
            text = line.removeprefix(_BOM) if number == 1 else line
            try:
                row = validate(text)
            except ValidationError as error:
                yield number, _reason(error)
            else:
                yield number, _repetition(text, row) or row


def _repetition(line: bytes, row: Row) -> str | None:
    """Return which member ``line`` has twice, of which ``row`` has the last alone, or None."""
    named, colons = len(row.model_fields_set), line.count(b":")
    # Each member has a colon of its own. Only where other colons cannot be told from these, as in
    # few rows, the line is read once more, which takes as long as the first time.
    if colons > named and b"\\u003" not in line:  # an escaped colon would count in a text alone
        texts = (row.text, *(row.image or (row.graph or "",)))
        colons -= sum([text.count(":") for text in texts])
    if colons == named or _COUNT(line.decode()) == named:
        return None
    twice = repeated(_MEMBERS(line.decode()))
    return f"{twice[0]}: expected once; the row has it more than once"


def _parquet_rows(source: Path) -> Iterator[tuple[int, Row | str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(source, memory_map=False, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=_PARQUET_BATCH, use_threads=False):
                for members in batch.to_pylist():
                    number += 1
                    yield number, _parquet_row(members)
    except (pa.ArrowException, OSError, ValueError, ArithmeticError) as error:
        # pyarrow finds text that is not UTF-8, and times out of range, only when it hands them out.
        kind = type(error).__name__
        yield number + 1, f"the body is no Parquet file that can be read from here on ({kind})"


def _parquet_row(members: dict[str, Any]) -> Row | str:
    try:
        # Parquet has a column in every row or in none: null is what JSON leaves out.
        given = {name: value for name, value in members.items() if value is not None}
        return Row.model_validate(given)
    except ValidationError as error:
        return _reason(error)


def _reason(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else str(first["msg"])
