"""Keeps a lease alive while a job is worked on, and writes its progress."""

import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.core.db import Database
from app.jobs import lease as leases
from app.jobs.errors import CancelRequested, LeaseLost
from app.jobs.lease import Lease

log = structlog.get_logger(__name__)


class Heartbeat:
    """A thread that renews ``lease`` every ``interval`` seconds; a context manager.

    A worker that cannot reach the database counts the seconds itself, so that it stops working by
    the time that another one may begin, also where a renewal hangs in the network.
    """

    def __init__(self, database: Database, lease: Lease, interval: float) -> None:
        self._database = database
        self._lease = lease
        self._interval = min(interval, lease.seconds / 3)
        self._renewed = time.monotonic()
        self._progress: Mapping[str, Any] | None = None
        self._lost = threading.Event()
        self._cancelled = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def report(self, progress: Mapping[str, Any]) -> None:
        """Have the next renewal write this progress; only the newest is kept."""
        self._progress = progress

    def check(self) -> None:
        """Return while the work may go on.

        Raises:
            LeaseLost: the job is another worker's by now, or may soon be.
            CancelRequested: somebody asked for the job to be cancelled.
        """
        overdue = time.monotonic() - self._renewed > self._lease.seconds
        if overdue or self._lost.is_set():
            raise LeaseLost(f"The lease of job {self._lease.job_id} could not be renewed in time.")
        if self._cancelled.is_set():
            raise CancelRequested(f"Job {self._lease.job_id} is to be cancelled.")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self._beat()
            if self._lost.is_set():
                return

    def _beat(self) -> None:
        progress, self._progress = self._progress, None
        began = time.monotonic()
        try:
            with self._database.transaction() as session:
                asked = leases.renew(session, self._lease, progress)
        except LeaseLost:
            self._lost.set()
        except SQLAlchemyError as error:
            log.warning("heartbeat_missed", error=type(error).__name__)
            self._progress = self._progress or progress
        else:
            self._renewed = began
            if asked:
                self._cancelled.set()
