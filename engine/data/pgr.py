"""Gene-phenotype relations in the manner of PGR: ``pairs.jsonl`` and a folder ``graph``.

A pair is a sentence that names a gene and a phenotype, with the subgraph around the two. Its item
id is ``<gene id>|<phenotype id>``, so that deleting a graph finds every sentence about those two;
its text id comes from the sentence, so that deleting a text finds every pair of that sentence.
"""

import hashlib
import html
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from engine.data.files import SEPARATOR
from engine.data.formats import Format, Row, formats
from engine.errors import DataError
from engine.spec import Split

PAIRS = "pairs.jsonl"
GRAPHS = "graph/subgraphs_1hop.npz"
SPLITS: dict[str, Split] = {"train": "train", "dev": "val", "val": "val", "test": "test"}


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
    label: int


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

    def rows(self, path: Path) -> Iterator[Row]:
        """See `Format.rows`."""
        try:
            with (path / PAIRS).open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, start=1):
                    yield self._row(line, number)
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot be read: {error}", file=PAIRS) from error

    def _row(self, line: str, number: int) -> Row:
        try:
            pair = PgrPair.model_validate_json(line)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            place = ".".join(str(step) for step in problem["loc"])
            reason = f"{place}: {problem['msg']}" if place else problem["msg"]
            raise DataError(reason, file=PAIRS, line=number) from None
        if pair.split not in SPLITS:
            reason = f"the split is {pair.split!r}; known are {', '.join(SPLITS)}"
            raise DataError(reason, file=PAIRS, line=number)
        raw = _mark(pair, number) if self.markers else pair.text
        return {
            "id": pair.id,
            "graph": GRAPHS + SEPARATOR + pair.id,
            "item_id": f"{pair.gene.id}|{pair.phenotype.id}",
            "text": html.unescape(raw),
            "text_id": _text_id(raw),
            "label": pair.label,
            "split": SPLITS[pair.split],
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


def _text_id(text: str) -> str:
    return f"text-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
