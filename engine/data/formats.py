"""Published and own formats of data sets, each as rows of the general manifest.

References in the rows are relative to `Format.root`. Formats are registered by name;
`detect_format` finds the one that a folder or file is in.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from engine.data.image_index import ImageIndex
from engine.data.lines import first_keys
from engine.data.rows import read_rows
from engine.errors import DataError
from engine.registry import Registry

Row = dict[str, Any]


class SourceRow(NamedTuple):
    """A row of the general manifest and the place in the source that it comes from.

    Attributes:
        file: name of the source, with the place in it where it has no lines.
        line: of the source, counted from 1, or None.
        row: as `ManifestRow` has it.
    """

    file: str
    line: int | None
    row: Row


class Format(ABC):
    """One format of data sets; ``name`` is the one in the registry."""

    name: ClassVar[str]

    @abstractmethod
    def detect(self, path: Path) -> bool:
        """Return whether ``path`` (folder or file) looks like this format; reads little of it."""

    @abstractmethod
    def rows(self, path: Path) -> Iterator[SourceRow]:
        """Yield manifest rows in the order of the source; raises `DataError`."""

    def root(self, path: Path) -> Path:
        """Return the folder or archive that the references of `rows` are relative to."""
        return path if path.is_dir() else path.parent


class ImageFormat(Format):
    """A format whose sources name images, wherever these lie; see `ImageIndex`."""

    def rows(self, path: Path) -> Iterator[SourceRow]:
        """See `Format.rows`; images are looked for below `root`."""
        return self.rows_with(path, ImageIndex(self.root(path)))

    @abstractmethod
    def rows_with(self, path: Path, images: ImageIndex) -> Iterator[SourceRow]:
        """Yield manifest rows with references to ``images``; raises `DataError`."""


formats: Registry[Format] = Registry("formats")


def detect_format(path: Path) -> Format:
    """Return the format of ``path``; raises `DataError` unless exactly one fits."""
    if not path.exists():
        raise DataError("no such folder or file", file=str(path))
    found = [form for name in formats if (form := formats.get(name)).detect(path)]
    if len(found) == 1:
        return found[0]
    known = f"expected a data set of one known format ({', '.join(formats)})"
    if not found:
        raise DataError(f"{known}; none fits", file=str(path))
    names = ", ".join(form.name for form in found)
    reason = f"{known}; {names} fit: give the path of the one file that is meant, or its format"
    raise DataError(reason, file=str(path))


class ManifestFormat(Format):
    """The general manifest itself, ``manifest.jsonl`` or ``manifest.parquet``."""

    name = "manifest"

    def detect(self, path: Path) -> bool:
        """See `Format.detect`; a file that begins with no JSON object still counts as one."""
        if path.is_file():
            return path.suffix.lower() == ".parquet" or (
                path.suffix.lower() == ".jsonl" and {"id", "text"} <= (first_keys(path) or _KEYS)
            )
        return len(self._candidates(path)) == 1

    def rows(self, path: Path) -> Iterator[SourceRow]:
        """See `Format.rows`."""
        if path.is_dir():
            candidates = self._candidates(path)
            if len(candidates) != 1:
                reason = f"expected one manifest.jsonl or manifest.parquet; {len(candidates)} found"
                raise DataError(reason, file=str(path))
            path = candidates[0]
        for line, row in read_rows(path):
            yield SourceRow(path.name, line, row.model_dump(exclude_none=True))

    def _candidates(self, folder: Path) -> list[Path]:
        if (folder / "digits.json").is_file():
            return []
        names = ("manifest.jsonl", "manifest.parquet")
        return [folder / name for name in names if (folder / name).is_file()]


_KEYS = frozenset({"id", "text"})

formats.register(ManifestFormat.name)(ManifestFormat())
