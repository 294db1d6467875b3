"""Find images by name: in folders, zip archives and tar shards below a root."""

import os
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath

from engine.data.archives import BrokenArchive, is_archive, open_archive
from engine.data.files import SEPARATOR
from engine.errors import DataError


class ImageIndex:
    """Every file below a root, found by the end of its path.

    A published data set names its images, and users keep them in folders and archives of their own
    making. Files are listed once, at the first search. What is in an archive goes before a loose
    file, and two files that fit equally well are an error: one of them would be the wrong image.

    Args:
        root: folder, or one zip or tar archive, that references are relative to.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, *paths: str, file: str, line: int | None = None) -> str:
        """Return the reference of the image whose path ends with the first of ``paths`` possible.

        Args:
            paths: names of one image, such as ``val2014/1.jpg`` and, less exact, ``1.jpg``.
            file: source that names the image, for the error.
            line: line of it.

        Raises:
            DataError: there is no such file, there are two, or an archive is broken.
        """
        for path in paths:
            found = self._fitting(path)
            if len(found) > 1:
                reason = f"the image {path!r} lies at {found[0]} and at {found[1]}; keep one"
                raise DataError(reason, file=file, line=line)
            if found:
                return found[0]
        reason = (
            f"the image {paths[-1]!r} is missing: no folder and no zip or tar archive below "
            f"{self.root} holds it"
        )
        raise DataError(reason, file=file, line=line)

    def _fitting(self, path: str) -> list[str]:
        found = self._by_name.get(PurePosixPath(path).name, [])
        found = [reference for reference in found if _inner(reference).endswith(f"/{path}")]
        found = [reference for reference in found if _inner(reference) == f"/{path}"] or found
        return [reference for reference in found if SEPARATOR in reference] or found

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        """References by the last part of their path."""
        known: dict[str, list[str]] = defaultdict(list)
        for reference in self._references():
            known[_inner(reference).rpartition("/")[2]].append(reference)
        return known

    def _references(self) -> Iterator[str]:
        if self.root.is_file():
            yield from _members(self.root, "")
            return
        for folder, folders, names in os.walk(self.root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            place = Path(folder).relative_to(self.root).as_posix()
            prefix = "" if place == "." else f"{place}/"
            for name in sorted(names):
                path = Path(folder, name)
                if not is_archive(name):
                    yield prefix + name
                elif path.is_file() or not path.exists():  # of a pipe, reading would never end
                    yield from _members(path, prefix + name + SEPARATOR)


def _members(path: Path, prefix: str) -> Iterator[str]:
    try:
        archive = open_archive(path)
    except BrokenArchive as error:
        raise DataError(str(error), file=path.name) from error
    names = archive.names
    archive.close()
    for name in names:
        yield prefix + name


def _inner(reference: str) -> str:
    """Return the path within the root or within the archive, with a slash before it."""
    name, separator, member = reference.partition(SEPARATOR)
    return f"/{member}" if separator else f"/{name}"
