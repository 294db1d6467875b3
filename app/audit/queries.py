"""What the database knows about measurements and the requests that they are about."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.audit.tables import Audit
from app.deletions.tables import DeletionRequest, RequestJob
from app.jobs.tables import Job


def audits_of(session: Session, version_id: str) -> Sequence[Audit]:
    """Return every audit of a version, oldest first."""
    chosen = select(Audit).where(Audit.version_id == version_id)
    return session.scalars(chosen.order_by(Audit.created_time, Audit.audit_id)).all()


def jobs_of(session: Session, request_id: str) -> list[Job]:
    """Return every job that the request has or had, oldest first."""
    chosen = (
        select(Job)
        .join(RequestJob, RequestJob.job_id == Job.job_id)
        .where(RequestJob.request_id == request_id)
        .order_by(Job.job_id)
    )
    return list(session.scalars(chosen))


def never_learned(session: Session, request_id: str) -> list[str]:
    """Return the versions whose training began after the request and left its pairs out."""
    chosen = (
        select(Job.output_version_id)
        .join(RequestJob, RequestJob.job_id == Job.job_id)
        .where(
            RequestJob.request_id == request_id,
            RequestJob.relation == "excluded",
            Job.output_version_id.is_not(None),
        )
        .order_by(Job.output_version_id)
    )
    return [version_id for version_id in session.scalars(chosen) if version_id]


def certified(session: Session, request: DeletionRequest) -> DeletionRequest:
    """Return the request whose certificate holds: ``request`` itself, or the one that met it."""
    seen = {request.request_id}
    while request.certificate is None and request.met_by_request_id not in {None, *seen}:
        earlier = session.get(DeletionRequest, request.met_by_request_id)
        if earlier is None:
            break
        request = earlier
        seen.add(request.request_id)
    return request
