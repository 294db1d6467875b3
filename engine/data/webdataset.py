"""Tar shards in the manner of WebDataset: pairs whose parts lie side by side in one archive.

The parts of a pair share a key, the member's path up to the first dot of its name; the rest is the
part's extension. ``.jpg``, ``.jpeg``, ``.png`` or ``.webp`` is an image (``.0.jpg`` and ``.1.jpg``
are two), ``.txt`` the text, ``.cls`` the number of its class, and ``.json`` an object that may hold
``text`` or ``caption``, ``label`` and ``split``. Without ``split`` the names of the shard and its
folder say it (``train/000000.tar``, ``val-000000.tar``).
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from engine.data.archives import COMPRESSED_TARS, Archive, BrokenArchive, open_archive
from engine.data.files import SEPARATOR
from engine.data.formats import Format, Row, SourceRow, files_in, formats
from engine.data.splits import split_in, split_of
from engine.errors import DataError
from engine.spec import Split

IMAGES = ("jpg", "jpeg", "png", "webp")
PARTS = ("txt", "cls", "json")
MAX_DIGITS = 9
"""Most digits of the number of a class."""
Sample = dict[str, str]
"""Members of one pair by extension."""


class WebDatasetFormat(Format):
    """A folder of shards, or of folders of shards; see the module."""

    name = "webdataset"

    def detect(self, path: Path) -> bool:
        """See `Format.detect`; opens the first shard and wants an image and a text in it."""
        shards = _shards(path)
        if not shards:
            return False
        endings = {name.rpartition(".")[2].lower() for name in _open(path, shards[0]).names}
        return not endings.isdisjoint(IMAGES) and not endings.isdisjoint(PARTS)

    def doubt(self, path: Path) -> str | None:
        """See `Format.doubt`; shards may be compressed, which no archive here is."""
        packed = [] if _shards(path) else _files(path, *COMPRESSED_TARS)
        if not packed:
            return None
        return f"shards must be plain .tar files, and {packed[0].name} is compressed: decompress it"

    def rows(self, path: Path) -> Iterator[SourceRow]:
        """See `Format.rows`."""
        shards = _shards(path)
        if not shards:
            reason = self.doubt(path) or "expected shards, whose names end in .tar; none is there"
            raise DataError(reason, file=str(path))
        for shard in shards:
            place = shard.relative_to(self.root(path)).as_posix()
            archive = _open(path, shard)
            for key, sample in _samples(archive).items():
                row = _row(archive, key, sample, place)
                yield SourceRow(f"{place}{SEPARATOR}{key}", None, row)


formats.register(WebDatasetFormat.name)(WebDatasetFormat())


def _shards(path: Path) -> list[Path]:
    return _files(path, ".tar")


def _files(path: Path, *endings: str) -> list[Path]:
    """Return the file ``path``, or those in that folder and in the folders right in it."""
    places = [path, *path.glob("*/")] if path.is_dir() else [path]
    return sorted(file for place in places for file in files_in(place, *endings))


def _open(path: Path, shard: Path) -> Archive:
    try:
        return open_archive(shard)
    except BrokenArchive as error:
        name = shard.name if path == shard else shard.relative_to(path).as_posix()
        raise DataError(str(error), file=name) from error


def _samples(archive: Archive) -> Mapping[str, Sample]:
    """Return the pairs of a shard by key, in its order."""
    found: dict[str, Sample] = defaultdict(dict)
    for member in archive.names:
        folder, slash, name = member.rpartition("/")
        stem, _, extension = name.partition(".")
        found[folder + slash + stem][extension.lower()] = member
    return found


def _row(archive: Archive, key: str, sample: Sample, place: str) -> Row:
    where = f"{place}{SEPARATOR}{key}"
    images = [sample[part] for part in sorted(sample) if part.rpartition(".")[2] in IMAGES]
    if len(images) not in (1, 2):
        reason = f"expected one or two images ({', '.join(IMAGES)}); it has {len(images)}"
        raise DataError(reason, file=where)
    more = _json(archive, sample, where)
    text = _text(archive, sample, "txt", where) or more.get("text") or more.get("caption")
    if not isinstance(text, str):
        raise DataError("expected a text: .txt, or 'text' or 'caption' in .json", file=where)
    references = [f"{place}{SEPARATOR}{image}" for image in images]
    row: Row = {
        "id": key,
        "image": references[0] if len(references) == 1 else references,
        "text": text.strip(),
        "split": _split(more, place, where),
    }
    label = _label(archive, sample, more, where)
    return row if label is None else {**row, "label": label}


def _label(archive: Archive, sample: Sample, more: Mapping[str, Any], where: str) -> Any:
    word = _text(archive, sample, "cls", where)
    if word is None:
        return more.get("label")
    if not word.strip().isdecimal() or len(word.strip()) > MAX_DIGITS:
        raise DataError(f"the .cls is {word[:40]!r}; expected the number of a class", file=where)
    return int(word)


def _split(more: Mapping[str, Any], place: str, where: str) -> Split:
    return split_of(str(more["split"]), file=where) if "split" in more else split_in(place)


def _json(archive: Archive, sample: Sample, where: str) -> dict[str, Any]:
    text = _text(archive, sample, "json", where)
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise DataError(f"expected JSON in .json: {error}", file=where) from error
    except RecursionError as error:
        raise DataError("the JSON in .json is nested too deeply", file=where) from error
    if not isinstance(found, dict):
        raise DataError("expected a JSON object in .json", file=where)
    return found


def _text(archive: Archive, sample: Sample, part: str, where: str) -> str | None:
    if part not in sample:
        return None
    try:
        return archive.read(sample[part]).decode("utf-8")
    except (BrokenArchive, UnicodeDecodeError) as error:
        raise DataError(f"the .{part} cannot be read: {error}", file=where) from error
