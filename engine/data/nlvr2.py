"""NLVR2 (Suhr et al. 2019): JSON lines, each a statement about two photographs.

The identifier ``split-set-pair-sentence`` names both photographs: its first three parts with
``-img0.png`` (left) and ``-img1.png`` (right). Those of the training split lie in numbered folders,
the line's ``directory``. The identifier says the split, too.
"""

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from engine.data.formats import ImageFormat, SourceRow, files_in, formats, keys_in
from engine.data.image_index import ImageIndex
from engine.data.labels import TRUTH, label_of
from engine.data.lines import read_models
from engine.data.rows import text_id
from engine.data.splits import split_of
from engine.errors import DataError

KEYS = frozenset({"identifier", "sentence", "label"})
SIDES = ("img0", "img1")


class Nlvr2Line(BaseModel):
    """One line; further keys are not needed."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)

    identifier: str
    sentence: str
    label: str
    directory: str | None = None


class Nlvr2Format(ImageFormat):
    """NLVR2, one split or a folder of several; see the module."""

    name = "nlvr2"

    def detect(self, path: Path) -> bool:
        """See `Format.detect`."""
        return bool(_sources(path))

    def rows_with(self, path: Path, images: ImageIndex) -> Iterator[SourceRow]:
        """See `ImageFormat.rows_with`."""
        sources = _sources(path)
        if not sources:
            raise DataError("expected JSON lines with identifier, sentence, label", file=str(path))
        for source in sources:
            for number, line in read_models(source, Nlvr2Line):
                yield _row(line, images, file=source.name, number=number)


formats.register(Nlvr2Format.name)(Nlvr2Format())


def _sources(path: Path) -> list[Path]:
    return [file for file in files_in(path, ".json", ".jsonl") if _is_nlvr2(file)]


def _is_nlvr2(file: Path) -> bool:
    keys = keys_in(file)
    return keys >= KEYS and "left" not in keys


def _row(line: Nlvr2Line, images: ImageIndex, *, file: str, number: int) -> SourceRow:
    parts = line.identifier.split("-")
    if len(parts) != 4:
        reason = f"the identifier is {line.identifier!r}; expected 'split-set-pair-sentence'"
        raise DataError(reason, file=file, line=number)
    names = [f"{'-'.join(parts[:3])}-{side}.png" for side in SIDES]
    row = {
        "id": line.identifier,
        "image": [_find(line, name, images, file=file, number=number) for name in names],
        "item_id": names,
        "text": line.sentence.strip(),
        "text_id": text_id(line.sentence),
        "label": label_of(line.label.lower(), TRUTH, file=file, line=number),
        "split": split_of(parts[0], file=file, line=number),
    }
    return SourceRow(file, number, row)


def _find(line: Nlvr2Line, name: str, images: ImageIndex, *, file: str, number: int) -> str:
    within = [] if line.directory is None else [f"{line.directory}/{name}"]
    return images.find(*within, name, file=file, line=number)
