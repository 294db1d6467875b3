"""What every worker looks after every few seconds.

These are jobs whose worker went silent, jobs nobody picked up, requests that no job will settle.
"""

from dataclasses import dataclass

import structlog

from app.core.db import Database
from app.deletions.completion import settle_left_behind
from app.jobs import endings, lease
from app.jobs.queue import Queue
from app.ledger.tree_head import Signer

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Reaper:
    """Gives expired jobs another attempt and announces queued ones; safe to run in any number of workers.

    Attributes:
        redispatch_seconds: after so long a job that nobody claimed is announced again.
        retry_seconds: pause before the second attempt of a job; doubled for each one after it.
    """

    database: Database
    queue: Queue
    signer: Signer
    redispatch_seconds: float
    retry_seconds: float

    def tick(self) -> None:
        """Do one round."""
        while self._reap_one():
            pass
        self.announce()
        with self.database.transaction() as session:
            settle_left_behind(session, self.signer)

    def _reap_one(self) -> bool:
        with self.database.transaction() as session:
            job = lease.expired(session)
            if job is None:
                return False
            log.warning("lease_expired", job_id=job.job_id, worker=job.worker)
            reason = f"worker {job.worker} went silent"
            pause = self.retry_seconds
            endings.give_back(session, self.signer, job, "worker_lost", reason, retry_seconds=pause)
            return True

    def announce(self) -> None:
        """Send a message for every queued job that is due for one."""
        with self.database.transaction() as session:
            job_ids = lease.due(session, self.redispatch_seconds)
        for job_id in job_ids:
            self.queue.dispatch(job_id)
