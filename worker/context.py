"""What a worker process has: its settings, its database, storage and queue, and its name."""

import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import structlog
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.orm import Session

from app.core.db import Database
from app.core.settings import Settings
from app.core.storage import Storage
from app.jobs.queue import Queue
from app.jobs.reaper import Reaper
from app.ledger.tree_head import Signer
from app.start import opened_log

T = TypeVar("T")
_PARTING_SECONDS = 2.0
log = structlog.get_logger(__name__)


@dataclass
class Context:
    """One worker process.

    Attributes:
        stopping: set once the process has been told to end; the running job is then put back.
    """

    settings: Settings
    database: Database
    storage: Storage
    queue: Queue
    signer: Signer
    name: str
    stopping: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def from_settings(cls, settings: Settings) -> "Context":
        """Connect to what the settings name.

        Raises:
            StartError: the URL of database or broker is missing, the database cannot be used, or the
                key is not its log's.
        """
        database_url, redis_url = settings.server_urls()
        signer = opened_log(settings, database_url)
        settings.work.mkdir(parents=True, exist_ok=True)
        return cls(
            settings=settings,
            database=Database(database_url, pool_size=5),
            storage=Storage(settings.storage),
            queue=Queue(redis_url),
            signer=signer,
            name=f"{socket.gethostname()}:{os.getpid()}",
        )

    @property
    def reaper(self) -> Reaper:
        """The reaper of this worker."""
        return Reaper(
            self.database,
            self.queue,
            self.signer,
            redispatch_seconds=self.settings.redispatch_seconds,
            retry_seconds=self.settings.retry_seconds,
        )

    def persist(self, work: Callable[[Session], T]) -> T:
        """Run ``work`` in a transaction, again and again while the database cannot be reached.

        ``work`` must be safe to repeat after a commit whose answer was lost: it looks at the state
        first.

        Raises:
            OperationalError: the database stayed away for as long as a lease lasts, or for two
                seconds where this process has been told to end: the reaper then ends the attempt.
        """
        began = time.monotonic()
        pause = 0.05
        while True:
            try:
                with self.database.transaction() as session:
                    return work(session)
            except (OperationalError, InterfaceError) as error:
                if time.monotonic() + pause > began + self._patience:
                    raise
                log.warning("database_unavailable", error=type(error.orig).__name__)
            except DBAPIError as error:
                late = time.monotonic() + pause > began + self._patience
                if late or not error.connection_invalidated:
                    raise
            time.sleep(pause)
            pause = min(pause * 2, 1.0)

    @property
    def _patience(self) -> float:
        """Seconds to wait for a database that is away."""
        lease = self.settings.lease_seconds
        return min(lease, _PARTING_SECONDS) if self.stopping.is_set() else lease

    def close(self) -> None:
        """Close connections."""
        self.queue.close()
        self.database.dispose()
