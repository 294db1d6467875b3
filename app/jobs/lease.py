"""Who may work on a job: claims by compare-and-set, leases that must be renewed, rows due for a message.

Each claim raises the row's ``fencing_token``. A worker writes only inside a transaction that has
locked the row and found its own token there with a lease that still runs (`hold`), so that a worker
that slept or was cut off can change nothing, whatever it believes. All times are the database's.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, func, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.jobs.errors import CancelRequested, LeaseLost
from app.jobs.tables import ACTIVE, Attempt, Job, JobEvent

_LONGEST_WAIT_SECONDS = 600.0


@dataclass(frozen=True)
class Lease:
    """The right to work on one job until ``seconds`` after the last renewal.

    Attributes:
        token: the fencing token of the claim; also the number of the attempt.
    """

    job_id: str
    token: int
    worker: str
    seconds: float


# Requests are met in the order in which they came, one that waits for another attempt or was put back
# not excepted: it waits for a bounded time, since attempts are counted and pauses have a longest one.
# An audit keeps nobody waiting, and waits for nobody: no deletion depends on it.
_FREE = """
    NOT EXISTS (
        SELECT 1 FROM jobs AS other WHERE other.lineage_id = job.lineage_id AND (
            other.status IN ('preparing', 'running', 'auditing', 'cancelling')
            OR (job.kind = 'unlearn' AND other.kind = 'unlearn' AND other.status = 'queued'
                AND other.job_id < job.job_id)))
"""
_CLAIM = text(
    f"""
    UPDATE jobs AS job
    SET status = 'preparing', fencing_token = fencing_token + 1, attempts = attempts + 1,
        max_attempts = :max_attempts, worker = :worker, progress = '{{}}', retry_time = NULL,
        updated_time = clock_timestamp(),
        started_time = coalesce(started_time, clock_timestamp()),
        lease_expires_time = clock_timestamp() + make_interval(secs => :seconds),
        input_version_id = CASE WHEN kind <> 'unlearn' THEN input_version_id ELSE (
            SELECT version_id FROM versions AS tip
            WHERE tip.lineage_id = job.lineage_id AND tip.status = 'ready'
            ORDER BY tip.number DESC LIMIT 1) END
    WHERE job_id = :job_id AND status = 'queued'
      AND (retry_time IS NULL OR retry_time <= clock_timestamp())
      AND {_FREE}
    RETURNING fencing_token
    """  # noqa: S608 - constants of this file
)


def claim(
    session: Session, job_id: str, worker: str, seconds: float, max_attempts: int = 3
) -> Lease | None:
    """Take a queued job whose turn it is and whose pause is over; None where there is nothing to take.

    It is a job's turn when its lineage is free and no earlier unlearning waits for that lineage.
    An unlearning job starts from the newest version of its lineage, so that deletions add up.
    """
    values = {"job_id": job_id, "worker": worker, "seconds": seconds, "max_attempts": max_attempts}
    try:
        with session.begin_nested():
            token = session.execute(_CLAIM, values).scalar()
    except IntegrityError:  # another job of the lineage was claimed at the same moment
        return None
    if token is None:
        return None
    session.add(Attempt(job_id=job_id, number=token, worker=worker))
    record_event(session, job_id, "status", {"status": "preparing", "attempt": token})
    session.flush()
    return Lease(job_id, token, worker, seconds)


_RENEW = text(
    """
    UPDATE jobs
    SET lease_expires_time = clock_timestamp() + make_interval(secs => :seconds),
        progress = coalesce(:progress, progress), updated_time = clock_timestamp()
    WHERE job_id = :job_id AND fencing_token = :token AND lease_expires_time > clock_timestamp()
      AND status IN ('preparing', 'running', 'auditing', 'cancelling')
    RETURNING cancel_requested
    """
).bindparams(bindparam("progress", type_=JSONB(none_as_null=True)))


def renew(session: Session, lease: Lease, progress: Mapping[str, Any] | None = None) -> bool:
    """Hold on to a job and store its progress; returns whether its cancellation was asked for.

    Raises:
        LeaseLost: the lease ran out, or the job is another worker's.
    """
    values = {"job_id": lease.job_id, "token": lease.token, "seconds": lease.seconds}
    asked = session.execute(_RENEW, {**values, "progress": progress}).scalar()
    if asked is None:
        raise LeaseLost(
            f"The lease {lease.token} of job {lease.job_id} has run out or was replaced."
        )
    if progress is not None:
        record_event(session, lease.job_id, "progress", progress)
    return bool(asked)


def hold(session: Session, lease: Lease, *, even_if_cancelled: bool = False) -> Job:
    """Lock the job's row until the transaction ends, and make sure that it is still ours.

    Raises:
        LeaseLost: nothing may be written.
        CancelRequested: somebody wants the job to stop, and the caller did not say that it may go
            on.
    """
    query = select(Job, Job.lease_expires_time > func.clock_timestamp()).where(
        Job.job_id == lease.job_id
    )
    options = {"populate_existing": True}
    row = session.execute(
        query.with_for_update(key_share=True), execution_options=options
    ).one_or_none()
    if (
        row is None
        or row[0].fencing_token != lease.token
        or row[0].status not in ACTIVE
        or not row[1]
    ):
        raise LeaseLost(
            f"The lease {lease.token} of job {lease.job_id} has run out or was replaced."
        )
    job: Job = row[0]
    if job.cancel_requested and not even_if_cancelled:
        raise CancelRequested(f"Job {lease.job_id} is to be cancelled.")
    return job


def move(session: Session, lease: Lease, status: str) -> None:
    """Set the status of a job that we hold to ``running`` or ``auditing``."""
    job = hold(session, lease)
    job.status = status
    record_event(session, lease.job_id, "status", {"status": status, "attempt": lease.token})
    session.flush()


def expired(session: Session) -> Job | None:
    """Lock and return an active job whose lease has run out, unless another reaper is at it."""
    query = (
        select(Job)
        .where(Job.status.in_(ACTIVE), Job.lease_expires_time < func.clock_timestamp())
        .order_by(Job.job_id)
        .limit(1)
        .with_for_update(key_share=True, skip_locked=True)
    )
    return session.scalar(query)


_DUE = text(
    f"""
    UPDATE jobs SET dispatched_time = clock_timestamp(), dispatches = dispatches + 1
    WHERE job_id IN (
        SELECT job_id FROM jobs AS job
        WHERE status = 'queued' AND finished_time IS NULL
          AND (retry_time IS NULL OR retry_time <= clock_timestamp())
          AND (dispatched_time IS NULL OR dispatched_time < clock_timestamp()
               - make_interval(secs => least(:longest, :seconds * power(2, least(dispatches - 1, 10))))
               OR EXISTS (SELECT 1 FROM attempts JOIN jobs AS other USING (job_id)
                          WHERE other.lineage_id = job.lineage_id AND other.job_id <> job.job_id
                            AND attempts.ended_time > job.dispatched_time))
          AND {_FREE}
        ORDER BY created_time LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED)
    RETURNING job_id
    """  # noqa: S608 - constants of this file
)


def due(session: Session, seconds: float, limit: int = 100) -> list[str]:
    """Return queued jobs that were never announced, or longer ago than ``seconds`` doubled each time.

    One whose lineage has been worked on since is due as well: while that went on nobody could claim
    it. It is found so, and not told by the job that ends, since two that end at the same moment
    would each wait for the other's row. A job that pauses before another attempt, or whose turn
    it is not, is not among them.
    """
    values = {"seconds": seconds, "longest": _LONGEST_WAIT_SECONDS, "limit": limit}
    return sorted(session.execute(_DUE, values).scalars())


def record_event(session: Session, job_id: str, kind: str, data: Mapping[str, Any]) -> None:
    """Add one point to the job's history."""
    session.add(JobEvent(job_id=job_id, kind=kind, data=json.loads(json.dumps(data))))
