"""How an attempt and a job end, each with its effect on the deletion requests that wait for the job.

Every function takes a job whose row the caller has locked (`lease.hold`, `lease.expired`).
"""

from datetime import timedelta
from typing import Any

from sqlalchemy import func, update
from sqlalchemy.orm import Session

from app.deletions.completion import settle
from app.deletions.queries import hold_dataset
from app.jobs.lease import record_event
from app.jobs.tables import Attempt, Job
from app.ledger.tree_head import Signer

_LONGEST_PAUSE_SECONDS = 3600.0


def succeed(
    session: Session,
    signer: Signer,
    job: Job,
    *,
    version_id: str | None,
    result: dict[str, Any],
) -> None:
    """End the job with its result; requests that have nothing else to wait for are completed."""
    job.output_version_id = version_id
    job.result = result
    _end(session, job, "succeeded", "succeeded", None)
    settle(session, signer, job.job_id)


def fail(session: Session, signer: Signer, job: Job, code: str, message: str) -> None:
    """End the job without result; its requests need attention, with the reason."""
    job.error = {"code": code, "message": message}
    _end(session, job, "failed", "failed", message)
    settle(session, signer, job.job_id)


def cancel(session: Session, signer: Signer, job: Job, reason: str) -> None:
    """End the job because somebody asked for it."""
    job.error = {"code": "cancelled", "message": reason}
    _end(session, job, "cancelled", "cancelled", reason)
    settle(session, signer, job.job_id)


def put_back(session: Session, job: Job, reason: str) -> None:
    """End an attempt that does not count, and have the job announced at the next tick of any worker."""
    job.attempts -= 1
    _requeue(session, job, "released", reason, pause=None)


def give_back(
    session: Session, signer: Signer, job: Job, outcome: str, reason: str, *, retry_seconds: float
) -> None:
    """End an attempt that broke off: once more after a pause if attempts are left, else the job fails.

    What broke it may need time to pass: the pause is ``retry_seconds``, doubled for each attempt
    after the first.
    """
    if job.cancel_requested:
        cancel(session, signer, job, "cancelled by request")
    elif job.attempts < job.max_attempts:
        pause = min(_LONGEST_PAUSE_SECONDS, retry_seconds * 2.0 ** (job.attempts - 1))
        _requeue(session, job, outcome, reason, pause=pause)
    else:
        fail(
            session, signer, job, outcome, f"attempt {job.attempts} of {job.max_attempts}: {reason}"
        )


def _requeue(session: Session, job: Job, outcome: str, reason: str, *, pause: float | None) -> None:
    _close_attempt(session, job, outcome, reason)
    job.status = "queued"
    job.dispatched_time = None
    job.dispatches = 0
    job.retry_time = None
    told: dict[str, Any] = {"status": "queued", "reason": reason}
    if pause is not None:
        job.retry_time = func.clock_timestamp() + timedelta(seconds=pause)
        told["retry_after_seconds"] = pause
    _free(job)
    record_event(session, job.job_id, "status", told)
    session.flush()


def _end(session: Session, job: Job, status: str, outcome: str, reason: str | None) -> None:
    if job.kind == "train":  # so that no request begins to wait for a training that is over
        hold_dataset(session, job.dataset_id)
    _close_attempt(session, job, outcome, reason)
    job.status = status
    job.finished_time = func.clock_timestamp()
    job.retry_time = None
    _free(job)
    record_event(session, job.job_id, "status", {"status": status, "reason": reason})
    session.flush()


def _free(job: Job) -> None:
    job.worker = None
    job.lease_expires_time = None


def _close_attempt(session: Session, job: Job, outcome: str, reason: str | None) -> None:
    session.execute(
        update(Attempt)
        .where(
            Attempt.job_id == job.job_id,
            Attempt.number == job.fencing_token,
            Attempt.ended_time.is_(None),
        )
        .values(ended_time=func.clock_timestamp(), outcome=outcome, reason=reason)
    )
