"""The data directory: made by `lethe serve` and `lethe demo` only, and served by one of them at a time."""

import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from app.core.embedded import has_database
from app.core.paths import is_there
from app.core.settings import Settings
from app.core.settings_errors import SettingsError
from app.core.settings_words import variable

_LOCK = "service.lock"
_PROBED_SECONDS = 0.5  # others hold the lock for a moment, to see whether it is free
_ANOTHER = "Name another data directory with --data-dir or LETHE_DATA_DIR."


class DataDirError(SettingsError):
    """The data directory cannot be used; the sentence says why and what to do."""


def require_lethe(folder: Path) -> None:
    """Refuse a folder in which no service has kept its database: only `lethe serve` makes one.

    Raises:
        DataDirError: there is none, or it may not be written, which a server has to.
    """
    try:
        found = has_database(folder)
    except OSError as error:
        raise _unusable(folder, error) from error
    if not found:
        raise DataDirError(
            f"No Lethe has its database in {folder.absolute()}. Name the data directory of yours with "
            "--data-dir or LETHE_DATA_DIR, or a database server with LETHE_DATABASE_URL; `lethe serve "
            f"--data-dir {folder}` makes a new one."
        )
    if not os.access(folder, os.W_OK | os.X_OK):  # a server starts in it
        raise _unusable(folder, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def require_places(settings: Settings, *, trainers: bool) -> None:
    """Make the folders that a process writes to, with ``trainers`` those of a worker too.

    That of a key whose file is set is only looked at: the file may be mistyped.

    Raises:
        SettingsError: one cannot be made or written, with the setting that names it.
    """
    key = settings.signing_key
    if not is_there(key):
        make = settings.signing_key_file is None
        _require_folder(settings, "signing_key_file", key.parent, mode=0o700, make=make)
    storage = urlsplit(settings.storage)
    if storage.scheme == "file":
        _require_folder(settings, "storage_url", Path(url2pathname(storage.path)))
    if trainers:
        _require_folder(settings, "work_dir", settings.work)
        _require_folder(settings, "cache_dir", settings.cache)


def require_roots(settings: Settings) -> None:
    """Refuse roots of data and of pretrained models that are not there, where all runs on this machine.

    Raises:
        SettingsError: one is no folder.
    """
    if settings.pretrained_root is not None and not settings.pretrained_root.is_dir():
        raise SettingsError(
            f"{variable('pretrained_root')} is {settings.pretrained_root}, which is no folder: expected "
            "one with a folder for each pretrained model. Correct it, or make the folder."
        )
    for root in settings.data_roots:
        if not Path(root).is_dir():
            what = "is no folder" if Path(root).exists() else "is not there"
            raise SettingsError(
                f"The data root {root} {what}: expected a folder below which datasets lie. Correct "
                f"--data-root or {variable('data_roots')}, or make the folder."
            )


@contextmanager
def served_alone(folder: Path) -> Iterator[Callable[[str], None]]:
    """Make the folder and keep every other service away from it while the block runs.

    Gives the function that tells the others the URL. What an earlier service left running when it
    was killed has locks of its own (`app.core.server_process`).

    Raises:
        DataDirError: the folder cannot be used, or a service runs in it.
    """
    with _opened(folder) as descriptor:
        if not _locked(descriptor, _PROBED_SECONDS):
            raise DataDirError(_served_already(folder))

        def tell(url: str = "") -> None:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "url": url}).encode(), 0)

        tell()
        yield tell


def is_served(folder: Path) -> bool:
    """Tell whether a service runs in this folder, or starts or ends there."""
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDWR)
    except OSError:
        return False
    try:
        return not _locked(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """Give a descriptor of the lock's file; the block's own errors are not taken for the folder's."""
    try:
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        descriptor = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    except OSError as error:
        raise _unusable(folder, error) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _locked(descriptor: int, patience: float = 0.0) -> bool:
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.02)
        else:
            return True


def _served_already(folder: Path) -> str:
    holder: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        holder = json.loads((folder / _LOCK).read_text())
    pid, url = holder.get("pid"), holder.get("url")
    by = f"process {pid}" if pid else "another process"
    stop = f"stop it (Ctrl-C in its terminal, or: kill {pid})" if pid else "stop it"
    return (
        f"The data directory {folder.absolute()} is served already by {by}"
        f"{f' at {url}' if url else ', which is still starting'}. Use that service, or {stop}. {_ANOTHER}"
    )


def _require_folder(
    settings: Settings, name: str, folder: Path, mode: int = 0o777, *, make: bool = True
) -> None:
    """Make a folder that the setting ``name`` gives, or that lies in the data directory without it."""
    try:
        if make:
            folder.mkdir(mode=mode, parents=True, exist_ok=True)
        _require_writable(folder if make else _there(folder))
    except OSError as error:
        if getattr(settings, name) is None:
            raise _unusable(settings.data_dir, error) from error
        raise SettingsError(
            f"{variable(name)}: expected a place that this user may write; {folder} cannot be used "
            f"({_reason(folder, error)})."
        ) from error


def _there(folder: Path) -> Path:
    """Return the folder, or the nearest above it that is there."""
    return next(one for one in (folder, *folder.absolute().parents) if one.exists())


def _require_writable(folder: Path) -> None:
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _unusable(folder: Path, error: OSError) -> DataDirError:
    return DataDirError(
        f"The data directory {folder.absolute()} cannot be used ({_reason(folder, error)}): expected a "
        f"folder that this user may write. {_ANOTHER}"
    )


def _reason(folder: Path, error: OSError) -> str:
    with suppress(OSError):
        if folder.is_file():
            return "it is a file"
    return error.strerror or type(error).__name__
