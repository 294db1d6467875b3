"""Audits as they were recorded, and the certificate of a request."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session

from app.audit import queries
from app.audit.errors import NoCertificate, RequestUnknown, VersionUnknown
from app.audit.schemas import (
    AuditOut,
    ForgottenIn,
    MetricOut,
    RequestAuditOut,
    StandingOut,
    VersionAuditOut,
)
from app.audit.tables import Audit
from app.deletions import outcome
from app.deletions.origins import Origin, origins
from app.deletions.outcome import Standing
from app.deletions.tables import DeletionRequest
from app.ledger.certificate import refreshed
from app.ledger.tree_head import Signer
from app.registry.deleted import count_still_known
from app.registry.tables import Version


def find_request(session: Session, request_id: str) -> DeletionRequest:
    """Return a deletion request.

    Raises:
        RequestUnknown: there is none with this id.
    """
    request = session.get(DeletionRequest, request_id)
    if request is None:
        raise RequestUnknown(
            f"There is no deletion request {request_id}. List them to find its id."
        )
    return request


def audit_out(audit: Audit) -> AuditOut:
    """Return an audit as the API shows it."""
    return AuditOut(
        audit_id=audit.audit_id,
        version_id=audit.version_id,
        job_id=audit.job_id,
        objective=audit.objective,
        metrics=[MetricOut.model_validate(metric) for metric in audit.metrics],
        cost=audit.cost,
        environment=audit.environment,
        created_time=audit.created_time,
    )


def version_audits(session: Session, version_id: str) -> VersionAuditOut:
    """Return every audit of a version.

    Raises:
        VersionUnknown: there is none with this id.
    """
    version = session.get(Version, version_id)
    if version is None:
        raise VersionUnknown(f"There is no version {version_id}. List the versions of its model.")
    return VersionAuditOut(
        version_id=version.version_id,
        model_id=version.model_id,
        number=version.number,
        checkpoint_sha256=version.checkpoint_sha256,
        weights_sha256=version.weights_sha256,
        contains_deleted=count_still_known(session, version),
        audits=[audit_out(audit) for audit in queries.audits_of(session, version_id)],
    )


def request_audits(session: Session, request_id: str) -> RequestAuditOut:
    """Return the measurements on every version that stands for a request.

    Raises:
        RequestUnknown: there is none with this id.
    """
    request = find_request(session, request_id)
    standing = outcome.shown(session, queries.certified(session, request))
    gone = origins(session, request, standing)
    return RequestAuditOut(
        request_id=request.request_id,
        dataset_id=request.dataset_id,
        status=request.status,
        met_by_request_id=request.met_by_request_id,
        versions=[_standing(one, request_id, gone[one.version.version_id]) for one in standing],
    )


def _standing(one: Standing, request_id: str, gone: Sequence[Origin]) -> StandingOut:
    return StandingOut(
        version_id=one.version.version_id,
        input_version_id=one.version.parent_id,
        model_id=one.model.model_id,
        number=one.version.number,
        status=one.version.status,
        job_id=one.version.job_id,
        made_for_request=request_id in one.made_for,
        checkpoint_sha256=one.version.checkpoint_sha256,
        weights_sha256=one.version.weights_sha256,
        forgotten_in=forgotten_in(gone),
        audit=None if one.audit is None else audit_out(one.audit),
    )


def forgotten_in(gone: Sequence[Origin]) -> list[ForgottenIn]:
    """Return where a request's pairs were forgotten, as the API shows it."""
    return [ForgottenIn.model_validate(origin, from_attributes=True) for origin in gone]


def certificate_of(
    session: Session, signer: Signer, request_id: str, since: int | None
) -> dict[str, Any]:
    """Return the certificate that holds for a request.

    Args:
        session: the transaction.
        signer: signs the current tree head where ``since`` asks for new evidence.
        request_id: a completed request.
        since: size of an older tree head, from which consistency is to be proved.

    Raises:
        RequestUnknown: there is no such request.
        NoCertificate: it is not completed.
        NoSuchSize: the log has never had ``since`` leaves.
    """
    request = find_request(session, request_id)
    bundle = queries.certified(session, request).certificate
    if request.status != "completed" or bundle is None:
        raise NoCertificate(
            f"Request {request_id} is {request.status}; a certificate is issued when it is"
            f" completed. {_what_to_do(request)}"
        )
    return bundle if since is None else refreshed(session, signer, bundle, since)


def _what_to_do(request: DeletionRequest) -> str:
    if request.status in {"denied", "cancelled"}:
        return "File a new request if the pairs are to be deleted."
    if request.status == "needs_attention":
        reason = (request.status_reason or "A job failed").rstrip(".")
        return f"{reason}. Retry the request."
    return "Ask again later."
