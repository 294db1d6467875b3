"""Taking a version out of use for good, together with those that it was unlearned from.

Whatever a version has learned, the versions before it have learned too, so none of them stays in
use without it. The versions of a lineage that are in use are therefore always its newest ones, and
a lineage whose newest version is retired is over: nothing is unlearned on it any more.
"""

from collections.abc import Collection, Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.deletions.completion import lock_open_requests_of_lineage, settle_lineage
from app.deletions.queries import hold_dataset
from app.jobs import endings
from app.jobs.tables import ACTIVE, Job
from app.ledger import log
from app.ledger.records import VersionRetired
from app.ledger.tree_head import Signer
from app.registry import queries
from app.registry.errors import VersionBusy, VersionNotReady
from app.registry.tables import Version


def retire(
    session: Session, signer: Signer, model_id: str, version_id: str, token_id: str
) -> Version:
    """Take a version and those before it out of use; a second time changes nothing.

    Jobs that wait for them are cancelled where the lineage is over, and requests that had nothing
    else to wait for are completed.

    Raises:
        VersionNotFound: the model has no such version.
        VersionNotReady: it waits for its files.
        VersionBusy: a job is running on one of them.
    """
    version = queries.get_version(session, version_id, model_id)
    if version.status == "uploading":
        raise VersionNotReady(
            f"Version {version_id} waits for its files; only one that is ready can be retired. Leave"
            " it as it is, or finalize it first."
        )
    if version.dataset_id is not None:
        hold_dataset(session, version.dataset_id)
    jobs = _lock_jobs(session, version.lineage_id)
    taken = _lock_versions(session, version)
    _check_idle(jobs, {one.version_id for one in taken})
    if taken:
        lock_open_requests_of_lineage(session, version.lineage_id)
        _take_out(session, taken, token_id)
        _end_jobs(session, signer, version, jobs)
    session.refresh(version)
    return version


def _lock_jobs(session: Session, lineage_id: str) -> Sequence[Job]:
    """Lock the open jobs of a lineage, so that none is claimed or recorded meanwhile."""
    query = select(Job).where(Job.lineage_id == lineage_id, Job.finished_time.is_(None))
    query = query.order_by(Job.job_id).with_for_update(key_share=True)
    return session.scalars(query, execution_options={"populate_existing": True}).all()


def _lock_versions(session: Session, newest: Version) -> Sequence[Version]:
    query = (
        select(Version)
        .where(
            Version.lineage_id == newest.lineage_id,
            Version.number <= newest.number,
            Version.status == "ready",
        )
        .order_by(Version.number)
        .with_for_update(key_share=True)
    )
    return session.scalars(query, execution_options={"populate_existing": True}).all()


def _check_idle(jobs: Sequence[Job], version_ids: Collection[str]) -> None:
    for job in jobs:
        if job.status in ACTIVE and job.input_version_id in version_ids:
            raise VersionBusy(
                f"Job {job.job_id} ({job.kind}) is {job.status} on version {job.input_version_id}."
                f" Cancel it (POST /v1/jobs/{job.job_id}/cancel) or wait for its end, then retire the"
                " version."
            )


def _take_out(session: Session, taken: Sequence[Version], token_id: str) -> None:
    now = session.scalar(select(func.clock_timestamp()))
    for version in taken:
        version.status = "retired"
        version.retired_time = now
    session.flush()
    for version in taken:
        log.append(
            session,
            VersionRetired(
                version_id=version.version_id,
                model_id=version.model_id,
                lineage_id=version.lineage_id,
                token_id=token_id,
            ),
        )


def _end_jobs(session: Session, signer: Signer, version: Version, jobs: Sequence[Job]) -> None:
    """Cancel what waits for the versions; a lineage that goes on keeps its unlearning."""
    newer = select(Version.version_id).where(
        Version.lineage_id == version.lineage_id, Version.status == "ready"
    )
    over = session.scalar(newer.limit(1)) is None
    for job in jobs:
        if job.status == "queued" and (over or job.kind == "evaluate"):
            endings.cancel(session, signer, job, f"version {version.version_id} was retired")
    if over:
        settle_lineage(session, signer, version.lineage_id)
