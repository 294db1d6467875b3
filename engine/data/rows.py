"""The row of a general manifest, its rules, and how JSON lines and Parquet are read.

One row is one pair: ``id``, exactly one of ``image`` (a reference, or a list of two) and ``graph``
(a reference), ``text``, ``split``, and optionally ``item_id``, ``text_id`` and ``label``.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, model_validator

from engine.data.lines import parse, read_models
from engine.data.pairs import Pair
from engine.errors import DataError
from engine.spec import Modality, Split

MAX_ID = 255
MAX_REFERENCE = 1024
MAX_TEXT = 20_000

Id = Annotated[str, Field(min_length=1, max_length=MAX_ID)]
Reference = Annotated[str, Field(min_length=1, max_length=MAX_REFERENCE)]
References = Annotated[list[Reference], Field(min_length=1, max_length=2)]


class ManifestRow(BaseModel):
    """One row; a row that is not as described here is an error, never a skipped row."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: Id
    image: Reference | References | None = None
    graph: Reference | None = None
    item_id: Reference | References | None = None
    text: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
    text_id: Id | None = None
    label: Annotated[int, Field(ge=0)] | None = None
    split: Split

    @model_validator(mode="after")
    def _check(self) -> "ManifestRow":
        if (self.image is None) == (self.graph is None):
            raise ValueError("exactly one of 'image' and 'graph' must be given")
        if self.item_id is not None and len(_tuple(self.item_id)) != len(self.references):
            raise ValueError(
                f"'item_id' must name {len(self.references)} items, as many as there are"
            )
        return self

    @property
    def references(self) -> tuple[str, ...]:
        """References of the row's images or graph."""
        return _tuple(self.image or self.graph or "")

    @property
    def modality(self) -> Modality:
        """``image`` or ``graph``."""
        return "graph" if self.image is None else "image"

    def pair(self, line: int | None = None) -> Pair:
        """Return the pair that the row on ``line`` describes, with the defaults filled in."""
        return Pair(
            id=self.id,
            items=self.references,
            item_ids=self.references if self.item_id is None else _tuple(self.item_id),
            text=self.text,
            text_id=self.id if self.text_id is None else self.text_id,
            label=self.label,
            split=self.split,
            line=line,
        )


def read_rows(manifest: Path) -> Iterator[tuple[int, ManifestRow]]:
    """Yield ``(line, row)`` of a manifest, ``line`` counted from 1, holding one batch in memory.

    Raises:
        DataError: the file cannot be read, or a row is broken.
    """
    if manifest.suffix.lower() == ".parquet":
        yield from _parquet_rows(manifest)
    else:
        yield from read_models(manifest, ManifestRow)


def write_rows(rows: Iterable[dict[str, Any]], manifest: Path) -> int:
    """Write rows as JSON lines (UTF-8, keys in the order given) and return how many."""
    count = 0
    with manifest.open("w", encoding="utf-8", newline="\n") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def text_id(text: str) -> str:
    """Return an id that pairs with the same text share, so that deleting a text finds them all."""
    return f"text-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _parquet_rows(manifest: Path) -> Iterator[tuple[int, ManifestRow]]:
    number = 0
    try:
        with pq.ParquetFile(manifest) as table:
            for batch in table.iter_batches(batch_size=4096):
                for row in batch.to_pylist():
                    number += 1
                    yield number, parse(ManifestRow, row, file=manifest.name, line=number)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"expected a readable Parquet file: {error}", file=manifest.name) from error


def _tuple(names: str | list[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)
