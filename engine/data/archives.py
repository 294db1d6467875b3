"""Archives of images, read at random: zip, and plain tar such as the shards of a WebDataset.

A tar has no list of its members. It is read through once, header by header, for where each
member begins and how long it is; after that every member is one read away. Nothing of an
archive is passed over in silence: a cut, a damaged header, a second archive behind the first and
two members of one name are errors, since in each case a reference could mean something else.
"""

import tarfile
import zlib
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO, Protocol
from zipfile import BadZipFile, ZipFile

COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
END_BYTES = tarfile.BLOCKSIZE + tarfile.RECORDSIZE
"""More than the end mark of a tar and its padding: what follows them would show."""


class BrokenArchive(Exception):
    """An archive or a member of it cannot be read; the message says why."""


class Archive(Protocol):
    """Members of one archive by name; a name that is not there raises `KeyError`."""

    @property
    def names(self) -> Collection[str]:
        """Return the names of its files."""

    def size(self, member: str) -> int:
        """Return the size of a member in bytes."""

    def read(self, member: str) -> bytes:
        """Return a whole member; raises `BrokenArchive`."""

    def close(self) -> None:
        """Give back what is open."""


def is_archive(name: str) -> bool:
    """Return whether a file of this name is opened as an archive when a folder is searched."""
    return name.lower().endswith((".zip", ".tar"))


def open_archive(path: Path) -> Archive:
    """Open a zip or, by its suffix, a tar archive.

    Raises:
        BrokenArchive: it cannot be read at random, is cut short, or has two members of one name.
    """
    name = path.name.lower()
    if name.endswith(COMPRESSED_TARS):
        raise BrokenArchive(
            "a compressed tar archive cannot be read at random; decompress it to .tar"
        )
    return TarArchive(path) if name.endswith(".tar") else ZipArchive(path)


class ZipArchive:
    """A zip archive; it stays open."""

    def __init__(self, path: Path) -> None:
        try:
            self._zip = ZipFile(path)
        except (BadZipFile, OSError, ValueError) as error:
            raise BrokenArchive(f"expected a readable zip archive: {error}") from error
        self.names: Collection[str] = frozenset(self._zip.namelist())
        if len(self.names) < len(self._zip.infolist()):
            ((name, _),) = Counter(self._zip.namelist()).most_common(1)
            raise BrokenArchive(_twice(name))

    def size(self, member: str) -> int:
        """See `Archive.size`."""
        return self._zip.getinfo(member).file_size

    def read(self, member: str) -> bytes:
        """See `Archive.read`."""
        try:
            return self._zip.read(member)
        except (
            BadZipFile,
            EOFError,
            NotImplementedError,
            OSError,
            RuntimeError,
            ValueError,
            zlib.error,
        ) as error:
            raise BrokenArchive(f"the archive's member is damaged: {error}") from error

    def close(self) -> None:
        """See `Archive.close`."""
        self._zip.close()


class TarArchive:
    """A tar archive without compression; opened for each read, so that shards may be many."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with path.open("rb") as source:
                self._places = _places(source)
        except (tarfile.TarError, OSError, ValueError) as error:
            raise BrokenArchive(f"expected a readable tar archive: {error}") from error

    @property
    def names(self) -> Collection[str]:
        """See `Archive.names`; a leading ``./`` is no part of a name."""
        return self._places.keys()

    def size(self, member: str) -> int:
        """See `Archive.size`."""
        return self._places[member][1]

    def read(self, member: str) -> bytes:
        """See `Archive.read`."""
        offset, size = self._places[member]
        try:
            with self._path.open("rb") as source:
                source.seek(offset)
                content = source.read(size)
        except OSError as error:
            raise BrokenArchive(f"the archive cannot be read: {error.strerror}") from error
        if len(content) < size:
            raise BrokenArchive(f"the archive ends in this member of {size} bytes: it was cut")
        return content

    def close(self) -> None:
        """See `Archive.close`; nothing is open."""


def _places(source: BinaryIO) -> dict[str, tuple[int, int]]:
    """Return the first byte and the number of bytes of every file in a tar archive."""
    places: dict[str, tuple[int, int]] = {}
    with tarfile.open(fileobj=source, mode="r:") as tar:
        while (member := tar.next()) is not None:
            # A header takes a kilobyte of memory, a shard can have a hundred thousand of them.
            tar.members.clear()  # type: ignore[attr-defined]  # not in typeshed
            _place(places, member)
        source.seek(tar.offset)
        end = source.read(END_BYTES)
    if len(end) < tarfile.BLOCKSIZE or end.strip(b"\0"):
        raise BrokenArchive(
            f"after {len(places)} files the tar archive has neither another one nor its end: it "
            "was cut short, is damaged, or is two archives in one file"
        )
    return places


def _place(places: dict[str, tuple[int, int]], member: tarfile.TarInfo) -> None:
    name = member.name.removeprefix("./")
    if member.islnk():
        place = places.get(member.linkname.removeprefix("./"))
    elif member.issparse():
        raise BrokenArchive(f"its member {name!r} is stored with holes; write it without --sparse")
    else:
        place = (member.offset_data, member.size) if member.isreg() else None
    if place is None:
        return  # a folder or a symbolic link: a reference to it finds no file
    if name in places:
        raise BrokenArchive(_twice(name))
    places[name] = place


def _twice(name: str) -> str:
    return f"the archive has two members named {name!r}, so that a reference is ambiguous"
