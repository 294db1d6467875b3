"""Published and own formats of data sets, each as rows of the general manifest.

References in the rows are relative to `Format.root`. Formats are registered by name;
`detect_format` finds the one that a folder or file is in.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from engine.data.image_index import ImageIndex
from engine.data.lines import first_keys
from engine.data.rows import read_rows
from engine.errors import DataError, EngineError
from engine.registry import Registry

Row = dict[str, Any]

MAX_QUOTED = 300
"""Most characters of an error of a format's own that are passed on."""


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

    def doubt(self, path: Path) -> str | None:
        """Return why ``path`` is nearly in this format and what to do, or None; see `detect_format`."""
        del path
        return None


class ImageFormat(Format):
    """A format whose sources name images, wherever these lie; see `ImageIndex`."""

    def rows(self, path: Path) -> Iterator[SourceRow]:
        """See `Format.rows`; images are looked for below `root`."""
        return self.rows_with(path, ImageIndex(self.root(path)))

    @abstractmethod
    def rows_with(self, path: Path, images: ImageIndex) -> Iterator[SourceRow]:
        """Yield manifest rows with references to ``images``; raises `DataError`."""


formats: Registry[Format] = Registry("formats")


def check_there(path: Path, kind: str = "folder or file") -> None:
    """Raise `DataError` unless there is something of that kind at ``path``, and it can be read."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"no such {kind}", file=str(path)) from None
    except OSError as error:
        raise DataError(f"it cannot be read: {error.strerror}", file=str(path)) from error
    if not os.access(path, os.R_OK):
        raise DataError("it may not be read: its permissions forbid it", file=str(path))


@contextmanager
def explained(name: str, *, file: str, line: int | None = None) -> Iterator[None]:
    """Make whatever the format ``name`` raises an error of the engine in one sentence.

    Args:
        name: of the format, as it is registered.
        file: where it was when it failed.
        line: of it; the row there is the last one that was read.

    Raises:
        DataError: the format raised anything but an `EngineError`.
    """
    try:
        yield
    except EngineError:
        raise
    except Exception as error:  # whatever the code of another distribution does
        raise DataError(_failure(name, error, line), file=file, line=line) from error


def _failure(name: str, error: Exception, line: int | None) -> str:
    place = "" if line is None else "after this row "
    if isinstance(error, RecursionError):
        return f"{place}what the format {name} reads is nested too deeply (RecursionError)"
    said = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")[:MAX_QUOTED]
    return (
        f"{place}the format {name} fails ({said}): the data are not as it expects them, or it has "
        "a fault"
    )


def detect_format(path: Path) -> Format:
    """Return the format of ``path``; raises `DataError` unless exactly one fits."""
    return formats.get(detect_name(path))


def detect_name(path: Path) -> str:
    """Return the name of the format of ``path``; raises `DataError` unless exactly one fits."""
    check_there(path)
    found = []
    for name in formats:
        with explained(name, file=str(path)):
            if formats.get(name).detect(path):
                found.append(name)
    if len(found) != 1:
        raise DataError(_undecided(path, found), file=str(path))
    return found[0]


def _undecided(path: Path, found: list[str]) -> str:
    known = f"expected a data set of one known format ({', '.join(formats)})"
    if found:
        fitting = f"{known}; {', '.join(found)} fit"
        return (
            f"{fitting}: give the path of the one file that is meant, or name its format (--format of "
            "lethe convert)"
        )
    doubts = []
    for name in formats:
        with explained(name, file=str(path)):
            doubts.append(formats.get(name).doubt(path))
    return "; ".join(filter(None, doubts)) or f"{known}; none fits"


def files_in(path: Path, *endings: str) -> list[Path]:
    """Return the file ``path``, or those right in that folder, whose names end in one of ``endings``.

    The endings are in lower case; the names may be in any.
    """
    files = path.glob("*") if path.is_dir() else [path]
    return sorted(file for file in files if file.name.lower().endswith(endings) and file.is_file())


def keys_in(source: Path) -> frozenset[str]:
    """Return the keys of the JSON object on the first line; none if there is no such object."""
    try:
        return first_keys(source) or frozenset()
    except RecursionError:  # thousands of brackets are an object of no format
        return frozenset()


class ManifestFormat(Format):
    """The general manifest itself, ``manifest.jsonl`` or ``manifest.parquet``."""

    name = "manifest"

    def detect(self, path: Path) -> bool:
        """See `Format.detect`; a file that begins with no JSON object still counts as one."""
        if path.is_file():
            return path.suffix.lower() == ".parquet" or (
                path.suffix.lower() == ".jsonl" and _may_be_rows(keys_in(path))
            )
        return len(_manifests(path)) == 1

    def doubt(self, path: Path) -> str | None:
        """See `Format.doubt`; a folder may hold two manifests."""
        return _not_one(_manifests(path)) if len(_manifests(path)) > 1 else None

    def rows(self, path: Path) -> Iterator[SourceRow]:
        """See `Format.rows`."""
        if path.is_dir():
            found = _manifests(path)
            if len(found) != 1:
                raise DataError(_not_one(found), file=str(path))
            path = found[0]
        line = 0
        try:
            for line, row in read_rows(path):
                yield SourceRow(path.name, line, row.model_dump(exclude_none=True))
        except UnicodeDecodeError as error:  # of a Parquet file, whose writers need not check it
            reason = f"a text in one of the rows after row {line} is not UTF-8: {error}"
            raise DataError(reason, file=path.name) from error


def _manifests(folder: Path) -> list[Path]:
    if not folder.is_dir() or (folder / "digits.json").is_file():
        return []
    return [file for file in files_in(folder, ".jsonl", ".parquet") if file.stem == "manifest"]


def _not_one(manifests: list[Path]) -> str:
    reason = "expected one manifest.jsonl or manifest.parquet"
    if not manifests:
        return f"{reason}; none is there"
    names = ", ".join(file.name for file in manifests)
    return f"{reason}; {names} are there: give the path of the one that is meant"


def _may_be_rows(keys: frozenset[str]) -> bool:
    """Return whether lines of such keys may be rows; those of `engine.data.pgr` are similar."""
    return not keys or ({"id", "text"} <= keys and not {"gene", "phenotype"} <= keys)


formats.register(ManifestFormat.name)(ManifestFormat())
