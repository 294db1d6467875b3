"""SNLI-VE (Xie et al. 2019): ``snli_ve_train.jsonl`` and its like beside the images of Flickr30K.

A line is a line of SNLI with the id of the photograph that stands for the premise. The photograph
is ``<id>.jpg``, and its item id is that name, as in Karpathy's Flickr30K: a deletion that names a
photograph means the same one in both data sets. The published splits hold no line without an
agreed label, so that ``-`` is an error as any other unknown label.
"""

from collections.abc import Iterator
from pathlib import Path

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from engine.data.formats import ImageFormat, SourceRow, files_in, formats, keys_in
from engine.data.image_index import ImageIndex
from engine.data.labels import ENTAILMENT, label_of
from engine.data.lines import read_models
from engine.data.splits import split_in
from engine.errors import DataError
from engine.spec import Split

IMAGE_KEYS = ("Flickr30K_ID", "Flikr30kID")
"""Both occur in published files, the second one in the older ones."""


class SnliVeLine(BaseModel):
    """One line; further keys of SNLI are not needed."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)

    pair_id: str = Field(validation_alias="pairID")
    image: str = Field(validation_alias=AliasChoices(*IMAGE_KEYS))
    hypothesis: str = Field(validation_alias="sentence2")
    label: str = Field(validation_alias="gold_label")


class SnliVeFormat(ImageFormat):
    """SNLI-VE, one split or a folder of several; see the module."""

    name = "snli_ve"

    def detect(self, path: Path) -> bool:
        """See `Format.detect`."""
        return bool(_sources(path))

    def rows_with(self, path: Path, images: ImageIndex) -> Iterator[SourceRow]:
        """See `ImageFormat.rows_with`; the name of a file says which split it is."""
        sources = _sources(path)
        if not sources:
            raise DataError(f"expected .jsonl files with {IMAGE_KEYS[0]}", file=str(path))
        splits = [split_in(source.name) for source in sources]
        for source, split in zip(sources, splits, strict=True):
            for number, line in read_models(source, SnliVeLine):
                yield _row(line, split, images, file=source.name, number=number)


formats.register(SnliVeFormat.name)(SnliVeFormat())


def _sources(path: Path) -> list[Path]:
    return [file for file in files_in(path, ".jsonl") if _is_snli_ve(file)]


def _is_snli_ve(file: Path) -> bool:
    keys = keys_in(file)
    return "gold_label" in keys and not keys.isdisjoint(IMAGE_KEYS)


def _row(
    line: SnliVeLine, split: Split, images: ImageIndex, *, file: str, number: int
) -> SourceRow:
    image = line.image.removesuffix(".jpg") + ".jpg"
    row = {
        "id": line.pair_id,
        "image": images.find(image, file=file, line=number),
        "item_id": image,
        "text": line.hypothesis.strip(),
        "label": label_of(line.label, ENTAILMENT, file=file, line=number),
        "split": split,
    }
    return SourceRow(file, number, row)
