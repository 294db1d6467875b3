"""The rules for making and cancelling jobs."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.core.db import after_commit
from app.core.tables import new_id
from app.datasets.tables import Dataset
from app.jobs import endings
from app.jobs.errors import JobEnded, JobNotFound
from app.jobs.lease import record_event
from app.jobs.queue import Queue
from app.jobs.tables import ENDED, Job
from app.ledger.tree_head import Signer
from app.registry.tables import Model, Version


def enqueue_training(
    session: Session, queue: Queue, *, model: Model, dataset: Dataset, spec: Mapping[str, Any]
) -> Job:
    """Queue the training of a new version; ``spec`` has ``config``, ``training`` and ``seed``.

    The job's ``lineage_id`` is the id that its version will have.
    """
    return _enqueue(
        session,
        queue,
        Job(
            kind="train",
            model_id=model.model_id,
            dataset_id=dataset.dataset_id,
            lineage_id=new_id("ver"),
            spec=dict(spec),
        ),
    )


def enqueue_evaluation(
    session: Session, queue: Queue, *, version: Version, spec: Mapping[str, Any] | None = None
) -> Job:
    """Queue the audit of a version as it is; the version must name the dataset it learned from."""
    return _enqueue(
        session,
        queue,
        Job(
            kind="evaluate",
            model_id=version.model_id,
            dataset_id=version.dataset_id,
            lineage_id=version.lineage_id,
            input_version_id=version.version_id,
            spec=dict(spec or {}),
        ),
    )


def enqueue_unlearning(
    session: Session,
    queue: Queue,
    *,
    model_id: str,
    dataset_id: str,
    lineage_id: str,
    spec: Mapping[str, Any],
) -> Job:
    """Queue unlearning on a lineage; see `app.deletions.intake.job_spec`."""
    return _enqueue(
        session,
        queue,
        Job(
            kind="unlearn",
            model_id=model_id,
            dataset_id=dataset_id,
            lineage_id=lineage_id,
            spec=dict(spec),
        ),
    )


def _enqueue(session: Session, queue: Queue, job: Job) -> Job:
    job.job_id = new_id("job")
    job.status = "queued"
    # The message goes out right after the commit; should it be lost, the outbox sends another.
    job.dispatched_time = func.clock_timestamp()
    job.dispatches = 1
    session.add(job)
    session.flush()
    after_commit(session, lambda: queue.dispatch(job.job_id))
    return job


def get_job(session: Session, job_id: str, *, lock: bool = False) -> Job:
    """Return a job.

    Raises:
        JobNotFound: no job has this id.
    """
    query = select(Job).where(Job.job_id == job_id)
    job = session.scalar(query.with_for_update(key_share=True) if lock else query)
    if job is None:
        raise JobNotFound(f"No job has the id {job_id!r}; GET /v1/jobs lists all of them.")
    return job


def cancel(session: Session, signer: Signer, job_id: str) -> Job:
    """Cancel a job: at once while it is queued, else its worker stops it at the next heartbeat.

    Raises:
        JobNotFound, JobEnded
    """
    job = get_job(session, job_id, lock=True)
    if job.status in ENDED:
        raise JobEnded(f"Job {job_id} has ended ({job.status}); only an open job can be cancelled.")
    request_cancel(session, signer, job, "cancelled by request")
    return job


def request_cancel(session: Session, signer: Signer, job: Job, reason: str) -> None:
    """Cancel an open job whose row the caller has locked."""
    if job.status == "queued":
        endings.cancel(session, signer, job, reason)
    elif not job.cancel_requested:
        job.cancel_requested = True
        job.status = "cancelling"
        record_event(session, job.job_id, "status", {"status": "cancelling", "reason": reason})
        session.flush()
