"""Where the demo runs and what it leaves: its folders, and the settings of its own service."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console

from app.core.settings import Settings, read_settings
from app.core.settings_errors import SettingsError
from app.demo.client import DemoError

_MOST_THREADS = 16  # models as small as these have no work for more


@contextmanager
def writable(option: str, folder: Path) -> Iterator[Path]:
    """Make a folder that something is written to at the end; give its absolute path.

    If the block fails, folders that were made for it go again, as far as they are empty.

    Raises:
        SettingsError: it cannot be made or written.
    """
    folder = folder.absolute()
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        _remove_empty(made)
        raise SettingsError(
            f"{option} cannot be written: {folder} cannot be used as a folder ({error.strerror}). Name "
            "another place."
        ) from error
    try:
        yield folder
    except BaseException:  # Ctrl-C too
        _remove_empty(made)
        raise


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def results(folder: Path) -> Iterator[Path]:
    """Give the folder of what is taken home; a demo that does not end takes away what it put there.

    A folder that had something in it before is left as it is then.

    Raises:
        SettingsError: it cannot be made or written, or something else lies where the checkpoint goes.
    """
    with writable("--out", folder) as out:
        _require_replaceable(out / "checkpoint")
        ours = not any(out.iterdir())
        try:
            yield out
        except BaseException:
            if ours:
                _clear(out)
            raise


def _require_replaceable(checkpoint: Path) -> None:
    if checkpoint.exists() and not (checkpoint / "SHA256SUMS").is_file():
        raise SettingsError(
            f"--out cannot be written: {checkpoint} is there already and is not from an earlier demo, and "
            "a checkpoint would replace it. Name another folder."
        )


def _clear(folder: Path) -> None:
    for one in folder.iterdir():
        if one.is_dir() and not one.is_symlink():
            shutil.rmtree(one, ignore_errors=True)
        else:
            one.unlink(missing_ok=True)


@contextmanager
def workspace() -> Iterator[Path]:
    """Give a folder that is gone at the end; others may pass through, as root's database needs."""
    folder = Path(tempfile.mkdtemp(prefix="lethe-demo-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def logs_kept(workspace: Path, kept: Path, console: Console) -> Iterator[None]:
    """Keep in ``kept`` what the service logged when the block fails; it would go with the workspace."""
    try:
        yield
    except DemoError:
        logs = list((workspace / "service").glob("*.log"))
        if logs:
            folder = (kept / "logs").absolute()
            folder.mkdir(parents=True, exist_ok=True)
            for log in logs:
                shutil.copy(log, folder)
            console.print(f"\nWhat the service logged is in {folder}.", highlight=False)
        raise


def private_settings(data_dir: Path, data_root: Path, *, parallel: bool) -> Settings:
    """Return the settings of a service on private servers, whatever the environment says about others.

    Args:
        data_dir: its data directory.
        data_root: what its datasets lie below.
        parallel: whether the trainer gets every core, where LETHE_THREADS says nothing.
    """
    given = read_settings()
    threads = given.threads
    if parallel and "threads" not in given.model_fields_set:
        threads = _usable_cores()
    return given.model_copy(
        update={
            "data_dir": data_dir,
            "database_url": None,
            "redis_url": None,
            "storage_url": None,
            "work_dir": None,
            "cache_dir": None,
            "pretrained_root": None,
            "signing_key_file": None,
            "host": "127.0.0.1",
            "port": 0,
            "data_roots": [str(data_root)],
            "threads": threads,
        }
    )


def _usable_cores() -> int:
    """Return how many threads the trainer gets: the demo has the machine to itself."""
    affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if affinity else os.cpu_count() or 1
    return min(cores, _MOST_THREADS)
