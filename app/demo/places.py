"""Where the demo runs and what it leaves: its folders, and the settings of its own service."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from app.core.settings import Settings, read_settings
from app.core.settings_errors import SettingsError
from app.demo.client import DemoError

_MOST_THREADS = 16  # models as small as these have no work for more


def require_writable(option: str, folder: Path) -> None:
    """Make a folder that something is written to at the end.

    Raises:
        SettingsError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise SettingsError(
            f"{option} cannot be written: {folder.absolute()} cannot be used as a folder "
            f"({error.strerror}). Name another place."
        ) from error


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
def logs_kept(workspace: Path, console: Console) -> Iterator[None]:
    """Keep what the service logged when the block fails; it would go with the workspace."""
    try:
        yield
    except DemoError:
        folder = Path("lethe-demo", "logs").absolute()
        folder.mkdir(parents=True, exist_ok=True)
        for log in (workspace / "service").glob("*.log"):
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
