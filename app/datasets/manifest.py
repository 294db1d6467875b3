"""Reads a pair manifest row by row into what the service keeps, in bounded memory.

Each good row is written to two files: the canonical manifest (JSON lines, always the same members
in the same order), which runs of the engine read, and rows for PostgreSQL's COPY, where `staging`
compares them. Nothing here touches the database, so a broken row costs no transaction.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from app.core.storage import room
from app.datasets.errors import ManifestInvalid
from app.datasets.readers import read_rows
from app.datasets.rows import Row, Rules, item_ids, objection

MOST_REPORTED = 20


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
    rows = read_rows(source, media_type)
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
        reason = objection(row, self.rules)
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
