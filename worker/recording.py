"""The end of a job in one transaction: version, audit, ledger leaves, requests and their certificates."""

from typing import Any

from sqlalchemy.orm import Session

from app.audit.tables import Audit
from app.core.tables import new_id
from app.deletions import duties
from app.deletions.completion import lock_open_requests
from app.deletions.queries import hold_dataset
from app.jobs import endings
from app.jobs.lease import Lease, hold
from app.jobs.tables import Job
from app.ledger import log
from app.ledger.records import AuditRecorded, VersionProduced, VersionRegistered, digest_of
from app.registry.deleted import count_still_known
from app.registry.service import add_version
from app.registry.tables import Version
from worker.context import Context
from worker.preparation import Assignment
from worker.publishing import Published


def record(
    context: Context,
    lease: Lease,
    assignment: Assignment,
    result: dict[str, Any],
    checkpoint: Published | None,
) -> None:
    """Record a run's outcome, exactly once.

    Raises:
        LeaseLost: the job is another worker's; nothing was written.
        CancelRequested: the job is to be cancelled; nothing was written.
    """

    def write(session: Session) -> None:
        if already_recorded(session, lease):
            return
        job = hold(session, lease)
        version = _version(session, job, assignment, checkpoint)
        audit = _audit(session, job, version, result)
        lock_open_requests(session, job.job_id)
        _append_leaves(session, assignment, version, audit, is_new=checkpoint is not None)
        _finish(session, context, job, assignment, version, result)

    context.persist(write)


def record_nothing_to_do(context: Context, lease: Lease) -> None:
    """End an unlearning job whose pairs the lineage had forgotten before it began."""

    def write(session: Session) -> None:
        if already_recorded(session, lease):
            return
        job = hold(session, lease)
        duties.covered(session, job, [])
        result = {"outcome": "everything was forgotten before", "request_ids": []}
        endings.succeed(
            session, context.signer, job, version_id=job.input_version_id, result=result
        )

    context.persist(write)


def already_recorded(session: Session, lease: Lease) -> bool:
    """Tell whether this very claim has ended the job: the answer to a commit can be lost on its way."""
    job = session.get_one(Job, lease.job_id, populate_existing=True)
    return job.fencing_token == lease.token and job.status == "succeeded"


def _version(
    session: Session, job: Job, assignment: Assignment, checkpoint: Published | None
) -> Version:
    if checkpoint is None:
        return session.get_one(Version, job.input_version_id)
    version = add_version(
        session,
        model_id=assignment.model_id,
        parent_id=assignment.input_version_id,
        lineage_id=assignment.lineage_id,
        dataset_id=assignment.dataset_id,
        source="training" if assignment.kind == "train" else "unlearning",
        checkpoint_sha256=checkpoint.checkpoint_sha256,
        weights_sha256=checkpoint.weights_sha256,
        files=checkpoint.files,
        recipe=assignment.recipe,
        job_id=assignment.job_id,
    )
    if job.kind == "train":
        # From here on the requests of the dataset stand still, so none can be overlooked.
        hold_dataset(session, job.dataset_id)
    return version


def _audit(session: Session, job: Job, version: Version, result: dict[str, Any]) -> Audit:
    audit = Audit(
        audit_id=new_id("aud"),
        version_id=version.version_id,
        job_id=job.job_id,
        objective=job.spec.get("objective"),
        metrics=result["metrics"],
        cost=result["cost"],
        environment=result["environment"],
    )
    session.add(audit)
    session.flush()
    return audit


def _append_leaves(
    session: Session, assignment: Assignment, version: Version, audit: Audit, *, is_new: bool
) -> None:
    if is_new:
        log.append(session, _version_leaf(session, assignment, version))
    log.append(
        session,
        AuditRecorded(
            audit_id=audit.audit_id,
            version_id=version.version_id,
            job_id=assignment.job_id,
            metric_count=len(audit.metrics),
            metrics_sha256=digest_of(audit.metrics),
        ),
    )


def _version_leaf(
    session: Session, assignment: Assignment, version: Version
) -> VersionProduced | VersionRegistered:
    common: dict[str, Any] = {
        "version_id": version.version_id,
        "model_id": version.model_id,
        "number": version.number,
        "lineage_id": version.lineage_id,
        "dataset_id": version.dataset_id,
        "checkpoint_sha256": version.checkpoint_sha256,
        "weights_sha256": version.weights_sha256,
        "job_id": assignment.job_id,
    }
    if version.parent_id is None:
        known = count_still_known(session, version)
        return VersionRegistered(**common, source="training", contains_deleted=known)
    request_ids = sorted(assignment.spec["forget"])
    return VersionProduced(**common, parent_id=version.parent_id, request_ids=request_ids)


def _finish(
    session: Session,
    context: Context,
    job: Job,
    assignment: Assignment,
    version: Version,
    result: dict[str, Any],
) -> None:
    if job.kind == "train":
        duties.after_training(session, context.queue, job, version)
    if job.kind == "unlearn":
        duties.covered(session, job, sorted(assignment.spec["forget"]))
    summary = {
        "version_id": version.version_id,
        "checkpoint_sha256": version.checkpoint_sha256,
        "cost": result["cost"],
    }
    if job.kind == "unlearn":
        # Of several requests that share a job some may have had nothing left to forget.
        summary["request_ids"] = sorted(assignment.spec["forget"])
    endings.succeed(session, context.signer, job, version_id=version.version_id, result=summary)
