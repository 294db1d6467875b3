"""Karpathy-split JSON (Flickr8K, Flickr30K, COCO and their like) with images in any place.

``{"images": [{"imgid", "filename", "filepath"?, "split", "sentences": [{"raw", "sentid"}]}]}``.
Every sentence becomes one pair; all sentences of an image share its item id, its file name.
``restval`` counts as ``train``, as is usual for COCO.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from engine.data.formats import ImageFormat, SourceRow, files_in, formats
from engine.data.image_index import ImageIndex
from engine.data.lines import parse
from engine.data.splits import split_of
from engine.errors import DataError

HEAD_BYTES = 65536


class KarpathySentence(BaseModel):
    """One caption; further keys of the source are not needed."""

    model_config = ConfigDict(extra="ignore")

    raw: str
    sentid: int | str


class KarpathyImage(BaseModel):
    """One image and its captions; further keys of the source are not needed."""

    model_config = ConfigDict(extra="ignore")

    imgid: int | str
    filename: str
    filepath: str = ""
    split: str
    sentences: list[KarpathySentence] = Field(min_length=1)


class KarpathyFormat(ImageFormat):
    """Karpathy-split JSON; see the module."""

    name = "karpathy"

    def detect(self, path: Path) -> bool:
        """See `Format.detect`; looks at the first 64 KiB of the JSON files."""
        return len(_sources(path)) == 1

    def doubt(self, path: Path) -> str | None:
        """See `Format.doubt`; a folder may hold two such files."""
        sources = _sources(path)
        return _not_one(sources) if len(sources) > 1 else None

    def rows_with(self, path: Path, images: ImageIndex) -> Iterator[SourceRow]:
        """See `ImageFormat.rows_with`."""
        sources = _sources(path)
        if len(sources) != 1:
            raise DataError(_not_one(sources), file=str(path))
        for number, entry in enumerate(_entries(sources[0])):
            place = f"{sources[0].name}, images[{number}]"
            image = parse(KarpathyImage, entry, file=place, line=None)
            yield from _pairs(image, images, place)


formats.register(KarpathyFormat.name)(KarpathyFormat())


def _sources(path: Path) -> list[Path]:
    return [file for file in files_in(path, ".json") if _is_karpathy(file)]


def _is_karpathy(file: Path) -> bool:
    try:
        with file.open("rb") as source:
            head = source.read(HEAD_BYTES)
    except OSError:
        return False
    return all(re.search(rb'"%s"\s*:' % key, head) for key in (b"images", b"sentences", b"split"))


def _not_one(sources: list[Path]) -> str:
    found = ", ".join(source.name for source in sources) or "none"
    what_to_do = ": give the path of the one that is meant" if sources else ""
    return f"expected one Karpathy-split JSON; found {found}{what_to_do}"


def _entries(source: Path) -> list[dict[str, Any]]:
    try:
        content: Any = json.loads(source.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"expected JSON: {error}", file=source.name) from error
    except RecursionError as error:
        raise DataError("expected JSON that is not nested so deeply", file=source.name) from error
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list) or not images:
        raise DataError("expected {'images': [...]} with at least one image", file=source.name)
    for number, entry in enumerate(images):
        if not isinstance(entry, dict):
            raise DataError("expected a JSON object", file=f"{source.name}, images[{number}]")
    return images


def _pairs(image: KarpathyImage, images: ImageIndex, place: str) -> Iterator[SourceRow]:
    names = [f"{image.filepath}/{image.filename}"] if image.filepath else []
    reference = images.find(*names, image.filename, file=place)
    split = split_of(image.split, file=place)
    for sentence in image.sentences:
        row = {
            "id": f"{image.imgid}-{sentence.sentid}",
            "image": reference,
            "item_id": image.filename,
            "text": sentence.raw.strip(),
            "text_id": str(sentence.sentid),
            "split": split,
        }
        yield SourceRow(place, None, row)
