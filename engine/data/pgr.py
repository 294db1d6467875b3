"""Gene-phenotype relations in the manner of PGR: ``pairs.jsonl`` and a folder ``graph``.

A pair is a sentence that names a gene and a phenotype, with the subgraph around the two. Its item
id is ``<gene id>|<phenotype id>``, so that deleting a graph finds every sentence about those two;
its text id comes from the sentence, so that deleting a text finds every pair of that sentence.
"""

import html
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from engine.data.files import SEPARATOR
from engine.data.formats import Format, Row, SourceRow, formats, keys_in
from engine.data.lines import read_models
from engine.data.rows import text_id
from engine.data.splits import split_of
from engine.errors import DataError

PAIRS = "pairs.jsonl"
GRAPHS = "graph/subgraphs_1hop.npz"
KEYS = frozenset({"id", "text", "gene", "phenotype"})


_FOLDER = f"expected the folder that holds {PAIRS} and {GRAPHS}, and a file came: give the folder"


class Mention(BaseModel):
    """Where a sentence names an entity; ``start`` and ``end`` are offsets in the raw text."""

    model_config = ConfigDict(extra="ignore")

    id: str
    start: int
    end: int


class PgrPair(BaseModel):
    """One line of ``pairs.jsonl``; further keys are not needed."""

    model_config = ConfigDict(extra="ignore")

    id: str
    split: str
    text: str
    gene: Mention
    phenotype: Mention
    label: Literal[0, 1]


class PgrFormat(Format):
    """PGR-style pairs with subgraphs; see the module.

    Args:
        markers: write ``[ ... ]`` around the gene and ``< ... >`` around the phenotype in the text.
            Such a text belongs to its pair alone, and so does its text id.
    """

    name = "pgr"

    def __init__(self, *, markers: bool = False) -> None:
        self.markers = markers

    def detect(self, path: Path) -> bool:
        """See `Format.detect`."""
        return all((path / name).is_file() for name in (PAIRS, GRAPHS))

    def doubt(self, path: Path) -> str | None:
        """See `Format.doubt`; the pairs may come without their folder, or without their graphs."""
        if path.is_file():
            return _FOLDER if keys_in(path) >= KEYS else None
        without = not (path / GRAPHS).is_file() and keys_in(path / PAIRS) >= KEYS
        return f"{PAIRS} is in the format {self.name}, and {GRAPHS} is missing" if without else None

    def rows(self, path: Path) -> Iterator[SourceRow]:
        """See `Format.rows`; the graphs are not opened."""
        if not path.is_dir():
            raise DataError(_FOLDER, file=str(path))
        for number, pair in read_models(path / PAIRS, PgrPair):
            yield SourceRow(PAIRS, number, self._row(pair, number))

    def _row(self, pair: PgrPair, number: int) -> Row:
        raw = _mark(pair, number) if self.markers else pair.text
        return {
            "id": pair.id,
            "graph": GRAPHS + SEPARATOR + pair.id,
            "item_id": f"{pair.gene.id}|{pair.phenotype.id}",
            "text": html.unescape(raw),
            "text_id": text_id(raw),
            "label": pair.label,
            "split": split_of(pair.split, file=PAIRS, line=number),
        }


formats.register(PgrFormat.name)(PgrFormat())


def _mark(pair: PgrPair, number: int) -> str:
    spans = [(pair.gene, "[", "]"), (pair.phenotype, "<", ">")]
    spans.sort(key=lambda span: span[0].start)
    first, second = spans[0][0], spans[1][0]
    if not 0 <= first.start < first.end <= second.start < second.end <= len(pair.text):
        reason = "the offsets of gene and phenotype overlap or leave the text"
        raise DataError(reason, file=PAIRS, line=number)
    pieces, last = [], 0
    for mention, opening, closing in spans:
        name = pair.text[mention.start : mention.end]
        pieces += [pair.text[last : mention.start], f"{opening} {name} {closing}"]
        last = mention.end
    return "".join([*pieces, pair.text[last:]])
