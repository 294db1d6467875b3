"""Where checkpoints and manifests are kept: any fsspec URL, a local folder by default.

Checkpoint files lie under ``checkpoints/<checkpoint_sha256>/<path>``, manifests under
``manifests/<sha256>.jsonl``, files being uploaded under ``uploads/<version_id>/``. Objects never
change once they are there, so writing one again is harmless.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast
from uuid import uuid4

import structlog
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from app.core.errors import Problem, Unavailable

log = structlog.get_logger(__name__)
_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EFBIG}


class StorageFull(Problem):
    """The storage has no room; what was written for this request or job is removed again."""

    status, slug, title = 507, "storage-full", "The storage is full"


class StorageRefused(Unavailable):
    """The service may not write where the storage is; what was begun is removed again."""

    slug, title = "storage-refused", "The storage cannot be written"


class ObjectMissing(Unavailable):
    """The database names an object that the storage does not have."""

    slug, title = "object-missing", "The storage does not have this object"


class Storage:
    """Objects by key, a relative path with ``/``.

    Args:
        url: fsspec URL such as ``file:///srv/lethe`` or ``s3://bucket/prefix``.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        filesystem, root = url_to_fs(url)
        self._fs: Any = filesystem
        self._root: str = str(root).rstrip("/")
        self._local = isinstance(filesystem, LocalFileSystem)

    def put_file(self, local: Path, key: str, *, move: bool = False) -> None:
        """Store a file under ``key``: it appears there whole or not at all.

        Args:
            local: the file; with ``move`` it may be gone afterwards.
            key: its key.
            move: spare the copy where the file is on the storage's own disk.

        Raises:
            StorageFull: no room; nothing of the file is left in the storage.
        """
        target = self._path(key)
        with room():
            if self._local:
                _store_locally(local, Path(target), move=move)
            else:
                self._fs.put_file(str(local), target)

    def put_directory(self, local: Path, prefix: str) -> None:
        """Store every file below ``local`` under ``prefix``.

        Raises:
            StorageFull: no room; what this call had written is removed again.
        """
        files = sorted(path for path in local.rglob("*") if path.is_file())
        keys = {f"{prefix}/{file.relative_to(local).as_posix()}": file for file in files}
        if self._local:
            self._put_staged(keys)
        else:
            self._put_each(keys)

    def _put_staged(self, files: dict[str, Path]) -> None:
        # All copies are made before the first appears: a full disk is met while nothing is visible,
        # and nothing is removed that another job with the same checkpoint relies on.
        staging = f"staging/{uuid4().hex}"
        try:
            for key, file in files.items():
                self.put_file(file, f"{staging}/{key}")
            for key in files:
                _place(Path(self._path(f"{staging}/{key}")), Path(self._path(key)))
        finally:
            self._clear(staging)

    def _put_each(self, files: dict[str, Path]) -> None:
        added: list[str] = []
        try:
            for key, file in files.items():
                if not self.exists(key):
                    added.append(key)
                    self.put_file(file, key)
        except BaseException:
            for key in added:
                self._clear(key)
            raise

    def get_directory(self, prefix: str, local: Path) -> None:
        """Copy every object under ``prefix`` into the folder ``local``; raises `ObjectMissing`."""
        source = self._path(prefix)
        found: list[str] = self._fs.find(source)
        if not found:
            raise ObjectMissing(f"The storage has nothing under {prefix}.")
        for path in found:
            target = local / PurePosixPath(path).relative_to(self._path(prefix))
            target.parent.mkdir(parents=True, exist_ok=True)
            with room():
                self._fs.get_file(path, str(target))

    def get_file(self, key: str, local: Path) -> None:
        """Copy one object to the file ``local``; raises `ObjectMissing`."""
        local.parent.mkdir(parents=True, exist_ok=True)
        with self.open(key) as source, room(), local.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)

    def copy(self, source: str, target: str) -> None:
        """Copy an object inside the storage; on a local disk it costs no room.

        Raises:
            ObjectMissing: there is no object ``source``.
            StorageFull: no room.
        """
        if not self.exists(source):
            raise ObjectMissing(f"The storage has no object {source}.")
        with room():
            if self._local:
                _link(Path(self._path(source)), Path(self._path(target)))
            else:
                self._fs.cp_file(self._path(source), self._path(target))

    def open(self, key: str) -> BinaryIO:
        """Open an object for reading and seeking; raises `ObjectMissing`."""
        try:
            return cast("BinaryIO", self._fs.open(self._path(key), "rb"))
        except FileNotFoundError:
            raise ObjectMissing(f"The storage has no object {key}.") from None

    def size(self, key: str) -> int:
        """Return an object's size in bytes; raises `ObjectMissing`."""
        try:
            return int(self._fs.size(self._path(key)))
        except FileNotFoundError:
            raise ObjectMissing(f"The storage has no object {key}.") from None

    def exists(self, key: str) -> bool:
        """Say whether there is an object ``key``."""
        return bool(self._fs.isfile(self._path(key)))

    def delete(self, prefix: str) -> None:
        """Remove the object ``prefix`` or everything under it; nothing there is no error."""
        with suppress(FileNotFoundError):
            self._fs.rm(self._path(prefix), recursive=True)
        self._fs.invalidate_cache()

    def local_path(self, key: str) -> Path | None:
        """Return an object's path where the storage is a local folder, else None."""
        return Path(self._path(key)) if self._local else None

    def check(self) -> None:
        """Write and remove a small object; raises `OSError` or `StorageFull` if that fails."""
        key = f"checks/{uuid4().hex}"
        with room():
            self._fs.makedirs(self._path("checks"), exist_ok=True)
            self._fs.pipe_file(self._path(key), b"ready")
        self.delete(key)

    def _clear(self, prefix: str) -> None:
        """Remove what was begun; what cannot be removed must not hide why it was given up."""
        try:
            self.delete(prefix)
        except OSError as error:
            log.warning("leftovers_in_storage", prefix=prefix, error=type(error).__name__)

    def _path(self, key: str) -> str:
        parts = key.split("/")
        if not key or "\\" in key or "\0" in key or any(part in {"", ".", ".."} for part in parts):
            raise ValueError(f"expected a relative key without '.' or '..' parts; got {key!r}")
        return f"{self._root}/{key}"


@contextmanager
def room() -> Iterator[None]:
    """Turn what the operating system says about a disk into a problem with what to do.

    Raises:
        StorageFull: no space is left, or a quota is used up.
        StorageRefused: permissions, a read-only disk, or a limit forbid it.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(
                "The storage has no room for this. What was written is removed again; free some "
                "space, then try again."
            ) from error
        if error.errno in _REFUSED or isinstance(error, PermissionError):
            log.warning("storage_refused", error=str(error))  # paths are the operator's matter
            raise StorageRefused(
                f"The storage refused to be written or read ({error.strerror or error}). Give the "
                "service the right to do it, then try again."
            ) from error
        raise


def _store_locally(source: Path, target: Path, *, move: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{uuid4().hex}.part")
    try:
        if not (move and _renamed(source, part)):
            shutil.copyfile(source, part)
        part.chmod(0o644)
        _sync(part)
        part.replace(target)
        _sync(target.parent)
    finally:
        part.unlink(missing_ok=True)


def _place(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)
    _sync(target.parent)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        try:
            os.link(source, target)
        except PermissionError:
            _store_locally(source, target, move=False)
        _sync(target.parent)


def _renamed(source: Path, target: Path) -> bool:
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return False
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
