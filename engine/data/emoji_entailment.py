"""Entailment over emoji drawings, ``entailment.jsonl``: an offline stand-in for SNLI-VE.

Sentences and labels are made by rule; no person judged them. The drawings lie in ``images.zip`` of
the same folder, or of the folder ``emoji_retrieval`` beside it, and have the item ids that they
have there.
"""

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from engine.data.formats import ImageFormat, SourceRow, formats
from engine.data.image_index import ImageIndex
from engine.data.labels import ENTAILMENT, label_of
from engine.data.lines import first_keys, read_models
from engine.data.splits import split_of

NAME = "entailment.jsonl"
IMAGES = "images.zip"
BESIDE = "emoji_retrieval"
KEYS = frozenset({"pairID", "image", "sentence2", "gold_label", "split"})


class EntailmentLine(BaseModel):
    """One line; further keys are not needed."""

    model_config = ConfigDict(extra="ignore")

    pair_id: str = Field(validation_alias="pairID")
    image: str
    hypothesis: str = Field(validation_alias="sentence2")
    label: str = Field(validation_alias="gold_label")
    split: str


class EmojiEntailmentFormat(ImageFormat):
    """Three classes, one image a pair; see the module."""

    name = "emoji_entailment"

    def detect(self, path: Path) -> bool:
        """See `Format.detect`."""
        return (first_keys(_source(path)) or frozenset()) >= KEYS

    def root(self, path: Path) -> Path:
        """See `Format.root`."""
        return root_of_drawings(path)

    def rows_with(self, path: Path, images: ImageIndex) -> Iterator[SourceRow]:
        """See `ImageFormat.rows_with`."""
        source = _source(path)
        for number, line in read_models(source, EntailmentLine):
            row = {
                "id": line.pair_id,
                "image": images.find(line.image, file=source.name, line=number),
                "item_id": line.image,
                "text": line.hypothesis,
                "label": label_of(line.label, ENTAILMENT, file=source.name, line=number),
                "split": split_of(line.split, file=source.name, line=number),
            }
            yield SourceRow(source.name, number, row)


formats.register(EmojiEntailmentFormat.name)(EmojiEntailmentFormat())


def _source(path: Path) -> Path:
    return path / NAME if path.is_dir() else path


def root_of_drawings(path: Path) -> Path:
    """Return the folder of the drawings that go with the folder or file at ``path``."""
    folder = path if path.is_dir() else path.parent
    beside = folder.absolute().parent / BESIDE
    elsewhere = not (folder / IMAGES).is_file() and (beside / IMAGES).is_file()
    return beside if elsewhere else folder
