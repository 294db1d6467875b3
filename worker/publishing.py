"""Bringing a checkpoint into the storage, and taking away what no version refers to.

A checkpoint's place is its digest, so two jobs with the same outcome share it. Whoever publishes or
discards a digest holds a lock on it, until the version is recorded.
"""

import contextlib
import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from app.jobs.tables import ENDED, Job
from app.registry.checkpoints import SUMS, WEIGHTS, checkpoint_sha256
from app.registry.service import checkpoint_key
from app.registry.tables import Version
from worker.context import Context

_BLOCK = 1 << 20
_PUBLISHED = "published"

log = structlog.get_logger(__name__)


class CheckpointDamaged(Exception):
    """The trainer's checkpoint is not the one that its result names."""

    code = "checkpoint_damaged"


@dataclass(frozen=True)
class Published:
    """A checkpoint in the storage: SHA-256 and size by path."""

    checkpoint_sha256: str
    weights_sha256: str
    files: dict[str, tuple[str, int]]


@contextmanager
def published(context: Context, job_id: str, folder: Path, expected: str) -> Iterator[Published]:
    """Copy a checkpoint to the storage and hold its digest until the block ends.

    Args:
        context: the worker.
        job_id: whose checkpoint it is.
        folder: the checkpoint's folder.
        expected: the digest that the trainer reported.

    Raises:
        CheckpointDamaged: the files have another digest.
        StorageFull: no room; what was copied is removed again.
    """
    checkpoint = measured(folder)
    if checkpoint.checkpoint_sha256 != expected:
        raise CheckpointDamaged(
            f"The trainer reported checkpoint {expected}, its files have {checkpoint.checkpoint_sha256}."
        )
    _note(context, job_id, expected)
    with _holding(context, expected):
        context.storage.put_directory(folder, checkpoint_key(expected))
        yield checkpoint


def measured(folder: Path) -> Published:
    """Hash the files of a checkpoint's folder."""
    files = {
        path.relative_to(folder).as_posix(): (_sha256(path), path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    digests = {path: digest for path, (digest, _) in files.items()}
    if WEIGHTS not in digests or SUMS not in digests:
        raise CheckpointDamaged(f"The trainer's checkpoint lacks {WEIGHTS} or {SUMS}.")
    return Published(checkpoint_sha256(digests), digests[WEIGHTS], files)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _note(context: Context, job_id: str, sha256: str) -> None:
    """Remember the digest on disk: whatever happens now, `clean` knows what to look after."""
    with (context.settings.work / job_id / _PUBLISHED).open("a", encoding="ascii") as file:
        file.write(sha256 + "\n")


@contextmanager
def _holding(context: Context, sha256: str) -> Iterator[None]:
    key = {"key": int(sha256[:15], 16)}
    with context.database.engine.connect() as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), key)
        connection.commit()
        try:
            yield
        finally:
            # Where the connection was cut the lock is gone already.
            with contextlib.suppress(DBAPIError):
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), key)
                connection.commit()


def clean(context: Context, job_id: str) -> None:
    """Remove a job's folder and every checkpoint it put into the storage that became no version."""
    home = context.settings.work / job_id
    noted = home / _PUBLISHED
    digests = set(noted.read_text("ascii").split()) if noted.exists() else set()
    for sha256 in digests:
        _discard(context, sha256)
    shutil.rmtree(home, ignore_errors=True)


def _discard(context: Context, sha256: str) -> None:
    with _holding(context, sha256):
        with context.database.transaction() as session:
            used = session.scalar(
                select(Version.version_id).where(Version.checkpoint_sha256 == sha256).limit(1)
            )
        if used is None:
            context.storage.delete(checkpoint_key(sha256))
            log.info("checkpoint_discarded", checkpoint_sha256=sha256)


def sweep(context: Context) -> None:
    """Clean up after jobs that have ended, also those whose worker did not live to do it."""
    homes = [path.name for path in context.settings.work.iterdir() if path.name.startswith("job_")]
    if not homes:
        return
    with context.database.transaction() as session:
        ended = list(
            session.scalars(select(Job.job_id).where(Job.job_id.in_(homes), Job.status.in_(ENDED)))
        )
    for job_id in ended:
        clean(context, job_id)
