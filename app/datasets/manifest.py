"""Reads a pair manifest row by row into what the service keeps, in bounded memory.

Each good row is written to two files: the canonical manifest (JSON lines, always the same members
in the same order), which runs of the engine read, and rows for PostgreSQL's COPY. Nothing here
touches the database, so a broken row costs no transaction.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from app.core.storage import room
from app.datasets.errors import ManifestInvalid, UnknownManifestFormat

JSON_LINES = ("application/x-ndjson", "application/jsonl")
PARQUET = "application/vnd.apache.parquet"
MEDIA_TYPES = (*JSON_LINES, PARQUET)
MOST_REPORTED = 20
MOST_LINE_BYTES = 4 << 20
_PARQUET_BATCH = 8192
# Ids are keys of B-tree indexes, whose entries have a limit in bytes.
_MOST_ITEM_BYTES = 1024
_PRINTABLE = r"^[^\x00-\x1f\x7f]+$"


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Identifier = Annotated[str, Field(min_length=1, max_length=255, pattern=_PRINTABLE)]
Item = Annotated[str, Field(min_length=1, max_length=_MOST_ITEM_BYTES, pattern=_PRINTABLE)]
Items = Annotated[list[Item], BeforeValidator(_as_list), Field(min_length=1, max_length=2)]


class Row(BaseModel):
    """One row of a manifest, as a caller may send it."""

    model_config = ConfigDict(strict=True, extra="forbid")

    id: Identifier
    image: Items | None = None
    graph: Item | None = None
    item_id: Items | None = None
    text: Annotated[str, Field(min_length=1, max_length=100_000)]
    text_id: Identifier | None = None
    label: Annotated[int, Field(ge=0)] | None = None
    split: Literal["train", "val", "test"]


@dataclass(frozen=True)
class Rules:
    """What a dataset demands of its rows."""

    modality: str
    classes: int | None


@dataclass
class Prepared:
    """A manifest that was read to its end: where its two files lie and what is in them."""

    canonical: Path
    copy_rows: Path
    sha256: str = ""
    split_counts: dict[str, int] = field(default_factory=dict)

    @property
    def pair_count(self) -> int:
        """Number of pairs."""
        return sum(self.split_counts.values())


def prepare(source: Path, media_type: str, rules: Rules, dataset_id: str, folder: Path) -> Prepared:
    """Check every row of ``source`` and write the two files into ``folder``.

    Raises:
        UnknownManifestFormat: ``media_type`` is not one of `MEDIA_TYPES`.
        ManifestInvalid: a row is broken, or there is none.
        StorageFull: there is no room for the files.
    """
    if media_type not in MEDIA_TYPES:
        raise UnknownManifestFormat(
            f"Expected Content-Type to be one of {', '.join(MEDIA_TYPES)}; got "
            f"{media_type or 'none'}."
        )
    rows = _parquet_rows(source) if media_type == PARQUET else _json_rows(source)
    prepared = Prepared(folder / "canonical.jsonl", folder / "rows.copy")
    with room(), prepared.canonical.open("wb") as canonical, prepared.copy_rows.open("wb") as copy:
        _Writer(prepared, rules, dataset_id, canonical, copy).write(rows)
    return prepared


@dataclass
class _Writer:
    prepared: Prepared
    rules: Rules
    dataset_id: str
    canonical: IO[bytes]
    copy: IO[bytes]
    broken: list[dict[str, str | int]] = field(default_factory=list)
    broken_count: int = 0

    def write(self, rows: Iterable[tuple[int, Row | str]]) -> None:
        digest = hashlib.sha256()
        counts: Counter[str] = Counter()
        line = 0
        for line, row in rows:
            reason = row if isinstance(row, str) else _objection(row, self.rules)
            if reason is not None:
                self._note(line, reason)
            elif not self.broken and isinstance(row, Row):
                encoded = canonical_line(row)
                digest.update(encoded)
                self.canonical.write(encoded)
                self.copy.write(_copy_line(self.dataset_id, row))
                counts[row.split] += 1
        if line == 0:
            self._note(1, "the manifest has no rows")
        if self.broken:
            raise ManifestInvalid(self.broken, self.broken_count)
        self.prepared.sha256 = digest.hexdigest()
        self.prepared.split_counts = {name: counts[name] for name in ("train", "val", "test")}

    def _note(self, line: int, reason: str) -> None:
        self.broken_count += 1
        if len(self.broken) < MOST_REPORTED:
            self.broken.append({"line": line, "detail": reason})


def canonical_line(row: Row) -> bytes:
    """Return ``row`` as the kept manifest has it: defaults written out, members in one order."""
    items = row.image or [row.graph or ""]
    members: dict[str, Any] = {
        "id": row.id,
        "image" if row.image else "graph": _one_or_two(items),
        "item_id": _one_or_two(item_ids(row)),
        "text": row.text,
        "text_id": row.text_id or row.id,
    }
    if row.label is not None:
        members["label"] = row.label
    members["split"] = row.split
    return json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def item_ids(row: Row) -> list[str]:
    """Return the ids of the row's images or graph: as given, or else their references."""
    return row.item_id or row.image or [row.graph or ""]


def lines_with_ids(canonical: Path) -> Iterator[tuple[int, str]]:
    """Yield line number and pair id of each row of a canonical manifest."""
    with canonical.open("rb") as file:
        for line, text in enumerate(file, 1):
            yield line, json.loads(text)["id"]


def _one_or_two(values: list[str]) -> str | list[str]:
    return values[0] if len(values) == 1 else values


def _copy_line(dataset_id: str, row: Row) -> bytes:
    ids = item_ids(row)
    # Ids have no control characters, so the backslash is all that COPY needs escaped.
    fields = [
        dataset_id,
        row.id.replace("\\", "\\\\"),
        ids[0].replace("\\", "\\\\"),
        ids[1].replace("\\", "\\\\") if len(ids) == 2 else "\\N",
        (row.text_id or row.id).replace("\\", "\\\\"),
        row.split,
    ]
    return "\t".join(fields).encode() + b"\n"


def _objection(row: Row, rules: Rules) -> str | None:
    """Return why the row does not fit the dataset, or None."""
    items = row.image if rules.modality == "image" else row.graph and [row.graph]
    if items is None or (row.image is not None and row.graph is not None):
        return f"expected '{rules.modality}' and not its counterpart in an {rules.modality} dataset"
    outside = next((item for item in items if _leaves_root(item)), None)
    if outside is not None:
        return f"{rules.modality}: the reference must be a relative path without '..'"
    if row.item_id is not None and len(row.item_id) != len(items):
        return f"item_id: {len(items)} expected, as many as items; {len(row.item_id)} came"
    if any(not item.isascii() and len(item.encode()) > _MOST_ITEM_BYTES for item in item_ids(row)):
        return f"item_id: at most {_MOST_ITEM_BYTES} bytes in UTF-8 expected"
    return _label_objection(row.label, rules.classes)


def _label_objection(label: int | None, classes: int | None) -> str | None:
    if classes is None:
        return None
    if label is None:
        return f"label: expected one of 0..{classes - 1}; none came"
    return None if label < classes else f"label: expected one of 0..{classes - 1}; got {label}"


def _leaves_root(reference: str) -> bool:
    plain = reference.isascii() and reference[0] not in "/\\" and ".." not in reference
    if plain and "\\" not in reference and ":" not in reference:
        return False
    parts = reference.replace("\\", "/").split("/")
    return parts[0] == "" or ".." in parts or parts[0][1:2] == ":"


def _json_rows(source: Path) -> Iterator[tuple[int, Row | str]]:
    validate = Row.model_validate_json
    with source.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MOST_LINE_BYTES), b""), 1):
            if len(line) == MOST_LINE_BYTES and not line.endswith(b"\n"):
                yield number, f"the line has more than {MOST_LINE_BYTES} bytes"
                return
            if line.isspace():
                continue
            try:
                yield number, validate(line)
            except ValidationError as error:
                yield number, _reason(error)


def _parquet_rows(source: Path) -> Iterator[tuple[int, Row | str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(source, memory_map=False, pre_buffer=False) as file:
            number = 0
            for batch in file.iter_batches(batch_size=_PARQUET_BATCH, use_threads=False):
                for members in batch.to_pylist():
                    number += 1
                    yield number, _parquet_row(members)
    except (pa.ArrowException, OSError) as error:
        yield 1, f"the body is no Parquet file that can be read ({type(error).__name__})"


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
