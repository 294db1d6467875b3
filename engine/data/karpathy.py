"""Karpathy-split JSON (Flickr8K, Flickr30K, COCO and their like) with a folder or zip of images.

``{"images": [{"imgid", "filename", "filepath"?, "split", "sentences": [{"raw", "sentid"}]}]}``.
Every sentence becomes one pair; all sentences of an image share its item id, its file name.
``restval`` counts as ``train``, as is usual for COCO.
"""

import json
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from engine.data.files import SEPARATOR
from engine.data.formats import Format, Row, formats
from engine.errors import DataError
from engine.spec import Split

SPLITS: dict[str, Split] = {"train": "train", "restval": "train", "val": "val", "test": "test"}
HEAD_BYTES = 65536

Locate = Callable[["KarpathyImage"], str | None]


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
    sentences: list[KarpathySentence]


class KarpathyFormat(Format):
    """Karpathy-split JSON; see the module."""

    name = "karpathy"

    def detect(self, path: Path) -> bool:
        """See `Format.detect`; looks at the first 64 KiB of the JSON files."""
        return len(_sources(path)) == 1

    def rows(self, path: Path) -> Iterator[Row]:
        """See `Format.rows`."""
        sources = _sources(path)
        if len(sources) != 1:
            found = ", ".join(source.name for source in sources) or "none"
            raise DataError(f"expected one Karpathy-split JSON; found {found}", file=str(path))
        images = _images(sources[0])
        locate = _locator(self.root(path), images)
        for number, image in enumerate(images):
            yield from _pairs(image, locate, file=sources[0].name, number=number)


formats.register(KarpathyFormat.name)(KarpathyFormat())


def _sources(path: Path) -> list[Path]:
    files = [path] if path.is_file() else sorted(path.glob("*.json"))
    return [file for file in files if file.suffix == ".json" and _is_karpathy(file)]


def _is_karpathy(file: Path) -> bool:
    with file.open("rb") as source:
        head = source.read(HEAD_BYTES)
    return all(re.search(rb'"%s"\s*:' % key, head) for key in (b"images", b"sentences", b"split"))


def _images(source: Path) -> list[KarpathyImage]:
    try:
        content: Any = json.loads(source.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"expected JSON: {error}", file=source.name) from error
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list) or not images:
        raise DataError("expected {'images': [...]} with at least one image", file=source.name)
    return [_image(entry, source.name, number) for number, entry in enumerate(images)]


def _image(entry: Any, file: str, number: int) -> KarpathyImage:
    try:
        image = KarpathyImage.model_validate(entry)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(str(step) for step in problem["loc"])
        raise DataError(f"images[{number}].{place}: {problem['msg']}", file=file) from None
    if image.split not in SPLITS:
        known = ", ".join(SPLITS)
        reason = f"images[{number}].split is {image.split!r}; known are {known}"
        raise DataError(reason, file=file)
    return image


def _pairs(image: KarpathyImage, locate: Locate, *, file: str, number: int) -> Iterator[Row]:
    reference = locate(image)
    if reference is None:
        raise DataError(f"images[{number}]: the image {image.filename!r} is missing", file=file)
    for sentence in image.sentences:
        yield {
            "id": f"{image.imgid}-{sentence.sentid}",
            "image": reference,
            "item_id": image.filename,
            "text": sentence.raw.strip(),
            "text_id": str(sentence.sentid),
            "split": SPLITS[image.split],
        }


def _locator(root: Path, images: list[KarpathyImage]) -> Locate:
    """Return a function from image to reference, by where the first image is found.

    Archives come before folders; a path with ``filepath`` before one without.
    """
    for locate in _places(root):
        if locate(images[0]) is not None:
            return locate
    raise DataError(
        f"found neither a zip nor a folder that holds the first image {images[0].filename!r}",
        file=str(root),
    )


def _places(root: Path) -> Iterator[Locate]:
    for archive in sorted(root.glob("*.zip")):
        try:
            with zipfile.ZipFile(archive) as members:
                names = frozenset(members.namelist())
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(
                f"expected a readable zip archive: {error}", file=archive.name
            ) from error
        for prefix in ("", f"{archive.stem}/"):
            yield from _ways(names.__contains__, archive.name + SEPARATOR, prefix)
    folders = sorted(f"{folder.name}/" for folder in root.iterdir() if folder.is_dir())
    for prefix in ["", *folders]:
        yield from _ways(lambda name: (root / name).is_file(), "", prefix)


def _ways(exists: Callable[[str], bool], archive: str, prefix: str) -> Iterator[Locate]:
    def with_path(image: KarpathyImage) -> str | None:
        name = f"{prefix}{image.filepath}/{image.filename}"
        return archive + name if image.filepath and exists(name) else None

    def without_path(image: KarpathyImage) -> str | None:
        name = prefix + image.filename
        return archive + name if exists(name) else None

    yield with_path
    yield without_path
