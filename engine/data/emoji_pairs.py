"""Statements about two emoji drawings, ``image_pairs.jsonl``: an offline stand-in for NLVR2.

Sentences and labels are made by rule; no person judged them. For the drawings see
`engine.data.emoji_entailment`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from engine.data.emoji_entailment import root_of_drawings
from engine.data.formats import ImageFormat, SourceRow, formats
from engine.data.image_index import ImageIndex
from engine.data.lines import first_keys, read_models
from engine.data.rows import text_id
from engine.data.splits import split_of

NAME = "image_pairs.jsonl"
KEYS = frozenset({"identifier", "sentence", "left", "right", "label", "split"})


class PairLine(BaseModel):
    """One line; further keys are not needed."""

    model_config = ConfigDict(extra="ignore")

    identifier: str
    sentence: str
    left: str
    right: str
    label: Literal[0, 1]
    split: str


class EmojiPairsFormat(ImageFormat):
    """Two classes, two images a pair, the left one first; see the module."""

    name = "emoji_pairs"

    def detect(self, path: Path) -> bool:
        """See `Format.detect`."""
        return (first_keys(_source(path)) or frozenset()) >= KEYS

    def root(self, path: Path) -> Path:
        """See `Format.root`."""
        return root_of_drawings(path)

    def rows_with(self, path: Path, images: ImageIndex) -> Iterator[SourceRow]:
        """See `ImageFormat.rows_with`."""
        source = _source(path)
        for number, line in read_models(source, PairLine):
            yield _row(line, images, file=source.name, number=number)


formats.register(EmojiPairsFormat.name)(EmojiPairsFormat())


def _source(path: Path) -> Path:
    return path / NAME if path.is_dir() else path


def _row(line: PairLine, images: ImageIndex, *, file: str, number: int) -> SourceRow:
    sides = [line.left, line.right]
    row = {
        "id": line.identifier,
        "image": [images.find(side, file=file, line=number) for side in sides],
        "item_id": sides,
        "text": line.sentence,
        "text_id": text_id(line.sentence),
        "label": line.label,
        "split": split_of(line.split, file=file, line=number),
    }
    return SourceRow(file, number, row)
