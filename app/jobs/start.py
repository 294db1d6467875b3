"""The start of work on a job: the claim, and what has to happen in the same transaction."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.deletions import duties
from app.deletions.completion import settle
from app.deletions.queries import hold_dataset
from app.deletions.tables import RequestJob
from app.jobs.lease import Lease, claim
from app.jobs.tables import Job
from app.ledger import log
from app.ledger.records import JobStarted
from app.ledger.tree_head import Signer


def start(
    session: Session, signer: Signer, job_id: str, worker: str, *, seconds: float, max_attempts: int
) -> Lease | None:
    """Claim a job and record in the ledger that it has begun; None where there is nothing to do.

    The ledger has one such leaf a job, however many attempts it takes. A training that is claimed
    again leaves out what requests waited for it with, so that they wait for it no longer.
    """
    query = select(Job.kind, Job.dataset_id).where(Job.job_id == job_id, Job.status == "queued")
    row = session.execute(query.with_for_update(key_share=True)).one_or_none()
    if row is None:
        return None
    if row.kind == "train":  # jobs are locked before datasets wherever both are
        hold_dataset(session, row.dataset_id)
    lease = claim(session, job_id, worker, seconds, max_attempts)
    if lease is None:
        return None
    job = session.get_one(Job, job_id, populate_existing=True)
    duties.begin(session, job)
    if lease.token == 1:
        log.append(session, _leaf(session, job))
    elif job.kind == "train":
        settle(session, signer, job_id)
    return lease


def _leaf(session: Session, job: Job) -> JobStarted:
    linked = select(RequestJob.request_id).where(
        RequestJob.job_id == job.job_id, RequestJob.relation == "forget"
    )
    return JobStarted(
        job_id=job.job_id,
        job_kind=job.kind,
        model_id=job.model_id,
        dataset_id=job.dataset_id,
        lineage_id=job.lineage_id,
        input_version_id=job.input_version_id,
        attempt=job.attempts,
        request_ids=list(session.scalars(linked.order_by(RequestJob.request_id))),
    )
