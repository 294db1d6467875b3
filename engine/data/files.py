"""Read files below a data set's root, and nothing outside it.

A root is a folder, or a zip or tar archive. A reference is ``folder/name.png`` or, below a folder,
``archive.zip::member.png`` or ``shards/000000.tar::member.png``. References come from manifests,
that is from outside, so that each is checked before it is opened.
"""

from pathlib import Path, PurePosixPath

from engine.data.archives import Archive, BrokenArchive, open_archive
from engine.errors import DataError

SEPARATOR = "::"
MAX_FILE_BYTES = 256 * 1024 * 1024


class DataFiles:
    """The files of one data set.

    Args:
        root: folder, or zip or tar archive, that references are relative to.

    Raises:
        DataError: the root is neither a folder nor a readable archive.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._archives: dict[Path, Archive] = {}
        if self.root.is_file():
            self._archive(self.root, root.name)
        elif not self.root.is_dir():
            raise DataError(
                "the root of the data set must be a folder, or a zip or tar archive; nothing is "
                "there",
                file=root.name,
            )

    def read(self, reference: str) -> bytes:
        """Return the bytes that ``reference`` names; raises `DataError` naming it."""
        if self.root.is_file():
            return self._member(self.root, reference, reference)
        name, _, member = reference.partition(SEPARATOR)
        path = self.path(name, reference)
        if member:
            return self._member(path, member, reference)
        return _read(path, reference)

    def path(self, name: str, reference: str = "") -> Path:
        """Return the file below the root folder that ``name`` is; raises `DataError`.

        Links are followed first, so that a link that points out of the root is refused as well.
        """
        reference = reference or name
        _check_relative(name, reference)
        if str(PurePosixPath(name)) != name:  # the same item would pass for another one
            raise DataError(
                "a path must be in its shortest form, without '//', './' or a slash at its end",
                file=reference,
            )
        path = (self.root / name).resolve()
        if not path.is_relative_to(self.root):
            raise DataError("the reference leaves the data set's root; it must not", file=reference)
        if not path.is_file():
            raise DataError("no such file below the data set's root", file=reference)
        return path

    def close(self) -> None:
        """Close the archives that were opened."""
        for archive in self._archives.values():
            archive.close()
        self._archives.clear()

    def _archive(self, path: Path, reference: str) -> Archive:
        if path not in self._archives:
            try:
                self._archives[path] = open_archive(path)
            except BrokenArchive as error:
                raise DataError(str(error), file=reference) from error
        return self._archives[path]

    def _member(self, path: Path, member: str, reference: str) -> bytes:
        _check_relative(member, reference)
        archive = self._archive(path, reference)
        try:
            _check_size(archive.size(member), reference)
            return archive.read(member)
        except KeyError:
            raise DataError(f"the archive {path.name} has no such member", file=reference) from None
        except BrokenArchive as error:
            raise DataError(str(error), file=reference) from error


def _read(path: Path, reference: str) -> bytes:
    try:
        _check_size(path.stat().st_size, reference)
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror}", file=reference) from error


def _check_size(size: int, reference: str) -> None:
    if size > MAX_FILE_BYTES:
        raise DataError(
            f"the file has {size} bytes; at most {MAX_FILE_BYTES} are read", file=reference
        )


def _check_relative(name: str, reference: str) -> None:
    """Refuse absolute paths, ``..``, backslashes, empty names and control characters."""
    parts = PurePosixPath(name).parts
    bad = not parts or parts[0] == "/" or ".." in parts or "\\" in name or not name.isprintable()
    if bad:
        raise DataError(
            "a reference must be a relative path below the data set's root, without '..'",
            file=reference or "(empty reference)",
        )
