"""Published and own formats of data sets, each as rows of the general manifest.

References in the rows are relative to `Format.root`. Formats are registered by name;
`detect_format` finds the one that a folder or file is in.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from engine.data.rows import read_rows
from engine.errors import DataError
from engine.registry import Registry

Row = dict[str, Any]


class Format(ABC):
    """One format of data sets; ``name`` is the one in the registry."""

    name: ClassVar[str]

    @abstractmethod
    def detect(self, path: Path) -> bool:
        """Return whether ``path`` (folder or file) looks like this format; reads little of it."""

    @abstractmethod
    def rows(self, path: Path) -> Iterator[Row]:
        """Yield manifest rows in the order of the source; raises `DataError`."""

    def root(self, path: Path) -> Path:
        """Return the folder or archive that the references of `rows` are relative to."""
        return path if path.is_dir() else path.parent


formats: Registry[Format] = Registry("formats")


def detect_format(path: Path) -> Format:
    """Return the format of ``path``; raises `DataError` unless exactly one fits."""
    if not path.exists():
        raise DataError("no such folder or file", file=str(path))
    found = [form for name in formats if (form := formats.get(name)).detect(path)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(form.name for form in found) or "none"
    raise DataError(
        f"expected a data set of one known format ({', '.join(formats)}); {names} fits: "
        "name the format",
        file=str(path),
    )


class ManifestFormat(Format):
    """The general manifest itself, ``manifest.jsonl`` or ``manifest.parquet``."""

    name = "manifest"

    def detect(self, path: Path) -> bool:
        """See `Format.detect`; a file is a manifest when it ends in .jsonl or .parquet."""
        if path.is_file():
            return path.suffix.lower() in (".jsonl", ".parquet")
        return len(self._candidates(path)) == 1

    def rows(self, path: Path) -> Iterator[Row]:
        """See `Format.rows`."""
        if path.is_dir():
            candidates = self._candidates(path)
            if len(candidates) != 1:
                reason = f"expected one manifest.jsonl or manifest.parquet; {len(candidates)} found"
                raise DataError(reason, file=str(path))
            path = candidates[0]
        for _, row in read_rows(path):
            yield row.model_dump(exclude_none=True)

    def _candidates(self, folder: Path) -> list[Path]:
        if (folder / "digits.json").is_file():
            return []
        names = ("manifest.jsonl", "manifest.parquet")
        return [folder / name for name in names if (folder / name).is_file()]


formats.register(ManifestFormat.name)(ManifestFormat())
