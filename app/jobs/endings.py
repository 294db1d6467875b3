"""How an attempt and a job end, each with its effect on the deletion requests that wait for the job.

Every function takes a job whose row the caller has locked (`lease.hold`, `lease.expired`).
"""

from typing import Any

from sqlalchemy import func, update
from sqlalchemy.orm import Session

from app.deletions.completion import settle
from app.deletions.queries import hold_dataset
from app.jobs.lease import record_event
from app.jobs.tables import Attempt, Job
from app.ledger.tree_head import Signer


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


def requeue(session: Session, job: Job, outcome: str, reason: str, *, counted: bool) -> None:
    """Put the job back for another attempt, announced at the next tick of any worker."""
    _close_attempt(session, job, outcome, reason)
    job.attempts -= 0 if counted else 1
    job.status = "queued"
    job.dispatched_time = None
    job.dispatches = 0
    _free(session, job)
    record_event(session, job.job_id, "status", {"status": "queued", "reason": reason})
    session.flush()


def give_back(session: Session, signer: Signer, job: Job, outcome: str, reason: str) -> None:
    """End an attempt that broke off: once more if attempts are left, else the job fails with the reason."""
    if job.cancel_requested:
        cancel(session, signer, job, "cancelled by request")
    elif job.attempts < job.max_attempts:
        requeue(session, job, outcome, reason, counted=True)
    else:
        fail(
            session, signer, job, outcome, f"attempt {job.attempts} of {job.max_attempts}: {reason}"
        )


def _end(session: Session, job: Job, status: str, outcome: str, reason: str | None) -> None:
    if job.kind == "train":  # so that no request begins to wait for a training that is over
        hold_dataset(session, job.dataset_id, alone=True)
    _close_attempt(session, job, outcome, reason)
    job.status = status
    job.finished_time = func.clock_timestamp()
    _free(session, job)
    record_event(session, job.job_id, "status", {"status": status, "reason": reason})
    session.flush()


def _free(session: Session, job: Job) -> None:
    job.worker = None
    job.lease_expires_time = None
    # What waits for the lineage is announced at the next tick.
    waiting = update(Job).where(Job.lineage_id == job.lineage_id, Job.status == "queued")
    session.execute(
        waiting.where(Job.job_id != job.job_id).values(dispatched_time=None, dispatches=0)
    )


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
