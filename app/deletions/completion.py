"""When a request is met, and what happens then: the certificate, once, in the transaction that meets it."""

from collections.abc import Sequence

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from app.audit.tables import Audit
from app.deletions import methods, queries
from app.deletions.tables import DeletionRequest, RequestJob
from app.jobs.tables import Job
from app.ledger import certificate
from app.ledger.certificate import CertificateData, CertifiedVersion, key_metrics
from app.ledger.records import pairs_commitment
from app.ledger.tree_head import Signer
from app.registry.tables import Version

OPEN = ("pending", "in_progress", "needs_attention")

# A lineage is stuck where every job of the request on it failed or was cancelled. A training that
# was waited for and ended without a version leaves nothing to forget.
_STATE = text(
    """
    WITH mine AS (
        SELECT request_id FROM deletion_request_jobs JOIN deletion_requests USING (request_id)
        WHERE job_id = :job_id AND deletion_requests.status IN ('pending', 'in_progress', 'needs_attention')),
    lines AS (
        SELECT link.request_id, job.lineage_id, bool_or(job.status = 'succeeded') AS done,
            bool_or(job.finished_time IS NULL) AS open, bool_or(link.relation = 'forget') AS forget
        FROM deletion_request_jobs AS link JOIN mine USING (request_id) JOIN jobs AS job USING (job_id)
        WHERE link.relation <> 'excluded'
        GROUP BY link.request_id, job.lineage_id, link.relation)
    SELECT mine.request_id, coalesce(bool_or(forget AND NOT done AND NOT open), false) AS stuck,
        coalesce(bool_or(open AND NOT done), false) AS open
    FROM mine LEFT JOIN lines USING (request_id)
    GROUP BY mine.request_id ORDER BY mine.request_id
    """
)


def settle(session: Session, signer: Signer, job_id: str) -> None:
    """Bring the requests of a job that has just ended up to date: completed, stuck, or still waiting."""
    session.flush()
    requests = lock_open_requests(session, job_id)
    for request_id, stuck, waiting in session.execute(_STATE, {"job_id": job_id}).all():
        request = requests.get(request_id)
        if request is None:
            continue
        if stuck:
            _call_for_attention(session, request, job_id)
        elif not waiting:
            complete(session, signer, request)
    session.flush()


def lock_open_requests(session: Session, job_id: str) -> dict[str, DeletionRequest]:
    """Lock the open requests of a job: after jobs and datasets, before the ledger."""
    query = (
        select(DeletionRequest)
        .join(RequestJob, RequestJob.request_id == DeletionRequest.request_id)
        .where(RequestJob.job_id == job_id, DeletionRequest.status.in_(OPEN))
        .order_by(DeletionRequest.request_id)
        .with_for_update(of=DeletionRequest, key_share=True)
    )
    found = session.scalars(query, execution_options={"populate_existing": True})
    return {request.request_id: request for request in found}


def _call_for_attention(session: Session, request: DeletionRequest, job_id: str) -> None:
    job = session.get_one(Job, job_id)
    request.status = "needs_attention"
    if job.status in {"failed", "cancelled"}:
        message = (job.error or {}).get("message", "no reason was given")
        request.status_reason = f"Job {job_id} {job.status}: {message}"


def complete(session: Session, signer: Signer, request: DeletionRequest) -> None:
    """Complete a request and issue its certificate; one that an earlier request met refers to that one's."""
    request.status = "completed"
    request.status_reason = None
    request.completed_time = session.scalar(select(func.clock_timestamp()))
    if request.met_by_request_id is None:
        data = certificate_data(session, request)
        request.certificate = certificate.issue(session, signer, data)
    else:
        earlier = session.get_one(DeletionRequest, request.met_by_request_id)
        bundle = earlier.certificate or {}
        certificate.refer(session, request.request_id, earlier.request_id, bundle)
    session.flush()


def certificate_data(session: Session, request: DeletionRequest) -> CertificateData:
    """Collect what the certificate of a completed request states."""
    earlier: list[str] = []
    if request.already_forgotten_count:
        earlier = queries.earlier_requests(session, request.request_id)
    versions = _certified(session, request.request_id, [request.request_id])
    if not versions and earlier:
        versions = _certified(session, request.request_id, earlier)
    guarantee, limitations = methods.promise(request.method)
    pair_ids = queries.pair_ids_of(session, request.request_id)
    return CertificateData(
        request_id=request.request_id,
        dataset_id=request.dataset_id,
        received_time=request.submitted_time,
        completed_time=request.completed_time,
        deadline=request.deadline,
        scope=request.scope,
        objective=request.objective,
        method=request.method,
        update=request.update,
        guarantee=guarantee if versions else "not_needed",
        limitations=limitations if versions else [],
        pair_count=request.pair_count,
        already_forgotten_count=request.already_forgotten_count,
        not_trained_count=request.not_trained_count,
        pairs_commitment=pairs_commitment(request.salt or b"", pair_ids),
        versions=versions,
        earlier_requests=earlier,
    )


def _certified(
    session: Session, request_id: str, of_requests: Sequence[str]
) -> list[CertifiedVersion]:
    """Return the newest version of each lineage that the jobs of ``of_requests`` led to."""
    query = (
        select(Version)
        .join(Job, Job.output_version_id == Version.version_id)
        .join(RequestJob, RequestJob.job_id == Job.job_id)
        .where(
            RequestJob.request_id.in_(of_requests),
            RequestJob.relation == "forget",
            Job.status == "succeeded",
            Version.parent_id.is_not(None),
        )
        .order_by(Version.number)
    )
    newest = {version.lineage_id: version for version in session.scalars(query)}
    return [_certified_version(session, request_id, newest[line]) for line in sorted(newest)]


def _certified_version(session: Session, request_id: str, version: Version) -> CertifiedVersion:
    audit = session.scalar(
        select(Audit).where(Audit.version_id == version.version_id, Audit.job_id == version.job_id)
    )
    return CertifiedVersion(
        version_id=version.version_id,
        input_version_id=version.parent_id or "",
        checkpoint_sha256=version.checkpoint_sha256 or "",
        weights_sha256=version.weights_sha256 or "",
        metrics=key_metrics(audit.metrics if audit else [], request_id),
    )
