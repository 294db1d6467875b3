"""Reads a pair manifest row by row into what the service keeps, in bounded memory.

Each good row is written to two files: the canonical manifest (JSON lines, always the same members
in the same order), which runs of the engine read, and rows for PostgreSQL's COPY, where `staging`
compares them. Nothing here touches the database, so a broken row costs no transaction.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from app.core.json_members import repeated
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
# No control characters and no line ends of Unicode, which would break lines of logs and terminals.
_PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]+$"
_MEMBER = "::"
_BOM = b"\xef\xbb\xbf"
# Made once: `json.loads` would make one for each row. Numbers stay text, whose length has no limit.
_COUNT = json.JSONDecoder(object_pairs_hook=len, parse_int=str).decode
_MEMBERS = json.JSONDecoder(object_pairs_hook=list, parse_int=str).decode


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
    text: Annotated[str, Field(min_length=1, max_length=20_000)]
    text_id: Identifier | None = None
    label: Annotated[int, Field(ge=0, lt=1_000_000)] | None = None
    split: Literal["train", "val", "test"]


@dataclass(frozen=True)
class Rules:
    """What a dataset demands of its rows."""

    modality: str
    classes: int | None


@dataclass
class Prepared:
    """A manifest that was read to its end: where its two files lie and what is in them.

    Attributes:
        canonical: the manifest as it is kept.
        copy_rows: its rows for PostgreSQL's COPY.
        sha256: of ``canonical``.
        split_counts: number of pairs of each split.
        items_per_pair: images or graphs of each pair.
        label_classes: one above the highest label; 0 without labels.
    """

    canonical: Path
    copy_rows: Path
    sha256: str = ""
    split_counts: dict[str, int] = field(default_factory=dict)
    items_per_pair: int = 0
    label_classes: int = 0

    @property
    def pair_count(self) -> int:
        """Number of pairs."""
        return sum(self.split_counts.values())


def prepare(source: Path, media_type: str, rules: Rules, folder: Path) -> Prepared:
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
        _Writer(prepared, rules, canonical, copy).write(rows)
    return prepared


@dataclass(frozen=True)
class _Kind:
    """What all rows of a manifest have in common with the first good one, on ``line``."""

    line: int
    items: int
    labelled: bool

    def objection(self, other: "_Kind") -> str | None:
        """Return why a row of another kind cannot follow, or None."""
        if other.items != self.items:
            return (
                f"image: expected {self.items} in every row, as on line {self.line}; "
                f"{other.items} came"
            )
        if other.labelled == self.labelled:
            return None
        found = ("has one", "none") if self.labelled else ("has none", "one")
        return (
            f"label: expected in every row or in none; line {self.line} {found[0]}, this row "
            f"{found[1]}"
        )


@dataclass
class _Writer:
    prepared: Prepared
    rules: Rules
    canonical: IO[bytes]
    copy: IO[bytes]
    kind: "_Kind | None" = None
    broken: list[dict[str, str | int]] = field(default_factory=list)
    broken_count: int = 0

    def write(self, rows: Iterable[tuple[int, Row | str]]) -> None:
        digest = hashlib.sha256()
        counts: Counter[str] = Counter()
        line = 0
        for line, row in rows:
            reason = row if isinstance(row, str) else self._objection(line, row)
            if reason is not None:
                self._note(line, reason)
            elif not self.broken and isinstance(row, Row):
                encoded = canonical_line(row)
                digest.update(encoded)
                self.canonical.write(encoded)
                self.copy.write(_copy_line(line, row))
                counts[row.split] += 1
                if row.label is not None and row.label >= self.prepared.label_classes:
                    self.prepared.label_classes = row.label + 1
        if line == 0:
            self._note(1, "the manifest has no rows")
        if self.broken:
            raise ManifestInvalid(self.broken, self.broken_count)
        self.prepared.sha256 = digest.hexdigest()
        self.prepared.items_per_pair = self.kind.items if self.kind is not None else 0
        self.prepared.split_counts = {name: counts[name] for name in ("train", "val", "test")}

    def _objection(self, line: int, row: Row) -> str | None:
        reason = _objection(row, self.rules)
        if reason is not None:
            return reason
        kind = _Kind(line, len(row.image or [row.graph]), labelled=row.label is not None)
        self.kind = self.kind or kind
        return self.kind.objection(kind)

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


def _one_or_two(values: list[str]) -> str | list[str]:
    return values[0] if len(values) == 1 else values


def _copy_line(line: int, row: Row) -> bytes:
    """Return ``row`` as COPY takes it, in the order of the columns of `staging`."""
    references, ids = row.image or [row.graph or ""], item_ids(row)
    names = [row.id, row.split, row.text_id or row.id, str(_digest(row.text))]
    for reference, item_id in zip(references, ids, strict=True):
        names += [reference, item_id]
    # Ids have no control characters, so the backslash is all that COPY needs escaped.
    fields = [str(line), *(name.replace("\\", "\\\\") for name in names)]
    fields += ["\\N"] * (2 * (2 - len(ids)))
    return "\t".join(fields).encode() + b"\n"


def _digest(text: str) -> int:
    """Return 64 bits by which two texts are told apart."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), signed=True)


def _objection(row: Row, rules: Rules) -> str | None:
    """Return why the row does not fit the dataset, or None."""
    items = row.image if rules.modality == "image" else row.graph and [row.graph]
    if items is None or (row.image is not None and row.graph is not None):
        return f"expected '{rules.modality}' and not its counterpart in an {rules.modality} dataset"
    if rules.modality == "graph" and not all(items[0].rpartition(_MEMBER)):
        return "graph: expected 'folder/file.npz::<key of the subgraph>'"
    odd = _reference_objection([_paths(item, rules.modality) for item in items])
    if odd is not None:
        return f"{rules.modality}: {odd}"
    if row.item_id is not None and len(row.item_id) != len(items):
        return f"item_id: {len(items)} expected, as many as items; {len(row.item_id)} came"
    if any(not item.isascii() and len(item.encode()) > _MOST_ITEM_BYTES for item in item_ids(row)):
        return f"item_id: at most {_MOST_ITEM_BYTES} bytes in UTF-8 expected"
    return _label_objection(row.label, rules.classes)


def _reference_objection(references: list[list[str]]) -> str | None:
    if any(_leaves_root(path) for paths in references for path in paths):
        return (
            "the reference must be a relative path without '..' or backslashes, of printable "
            "characters"
        )
    if any(_spelt_oddly(file) for file, *_ in references):
        return (
            "the path must be in its shortest form, without '//', './' or a slash at its end, so "
            "that one item has one reference"
        )
    return None


def _label_objection(label: int | None, classes: int | None) -> str | None:
    if classes is None:
        return None
    if label is None:
        return f"label: expected one of 0..{classes - 1}; none came"
    return None if label < classes else f"label: expected one of 0..{classes - 1}; got {label}"


def _paths(reference: str, modality: str) -> list[str]:
    """Return the paths in a reference: of a file, and of a member where that is an archive."""
    if modality == "graph":
        reference = reference.rpartition(_MEMBER)[0]
    archive, _, member = reference.partition(_MEMBER)
    return [archive, member] if member else [reference]


def _leaves_root(path: str) -> bool:
    """Tell whether a path leads out of the root or is none, so that no run would read it."""
    plain = path.isascii() and path[:1] not in {"", "/", "."}
    if plain and "\\" not in path and ":" not in path and ".." not in path:
        return False
    parts = PurePosixPath(path).parts
    odd = not parts or "\\" in path or not path.isprintable()
    return odd or parts[0] == "/" or ".." in parts or parts[0][1:2] == ":"


def _spelt_oddly(path: str) -> bool:
    """Tell whether a path has a shorter spelling: the same item would pass for another one."""
    if "//" not in path and "/." not in path and path[:1] != "." and path[-1:] != "/":
        return False
    return str(PurePosixPath(path)) != path


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
