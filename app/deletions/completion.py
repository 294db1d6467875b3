"""When a request is met, and what happens then: the certificate, once, in the transaction that meets it."""

from collections.abc import Sequence
from typing import Literal

from sqlalchemy import ColumnElement, func, select, text
from sqlalchemy.orm import Session

from app.deletions import methods, outcome, queries
from app.deletions.origins import Origin, origins
from app.deletions.outcome import Standing
from app.deletions.tables import UNDER_WAY, DeletionRequest, RequestJob
from app.jobs.tables import Job
from app.ledger import certificate
from app.ledger.certificate import (
    CertificateData,
    CertifiedVersion,
    ForgottenIn,
    key_metrics,
    reference_models_of,
)
from app.ledger.records import pairs_commitment
from app.ledger.tree_head import Signer

OPEN = ("pending", "in_progress", "needs_attention")

# A lineage is stuck where every job of the request on it failed or was cancelled, unless it was
# retired since. A training that was waited for and ended without a version leaves nothing to forget;
# one whose version got no job of its own was refused by `duties.after_training`. A request without
# any line has nothing left to wait for: a training that it awaited was claimed again, and left its
# pairs out.
_STATE = text(
    """
    WITH lines AS (
        SELECT link.request_id, bool_or(job.status = 'succeeded') AS done,
            bool_or(job.finished_time IS NULL) AS open, link.relation = 'forget' AS forget,
            EXISTS (SELECT 1 FROM versions
                    WHERE versions.lineage_id = job.lineage_id AND versions.status = 'ready') AS used,
            EXISTS (SELECT 1 FROM deletion_request_jobs AS other JOIN jobs AS own USING (job_id)
                    WHERE other.request_id = link.request_id AND other.relation = 'forget'
                      AND own.lineage_id = job.lineage_id) AS given,
            max(job.job_id) AS last_job_id
        FROM deletion_request_jobs AS link JOIN jobs AS job USING (job_id)
        WHERE link.relation <> 'excluded' AND link.request_id = ANY(:request_ids)
        GROUP BY link.request_id, job.lineage_id, link.relation)
    SELECT request_id,
        max(last_job_id) FILTER (WHERE used AND forget AND NOT done AND NOT open) AS failed,
        max(last_job_id) FILTER (WHERE used AND NOT given AND done) AS refused,
        bool_or(open AND NOT done) AS open
    FROM unnest(CAST(:request_ids AS text[])) AS request_id LEFT JOIN lines USING (request_id)
    GROUP BY request_id ORDER BY request_id
    """
)
_ROUND = 100


def settle(session: Session, signer: Signer, job_id: str) -> None:
    """Bring the requests of a job that has just ended up to date: completed, stuck, or still waiting."""
    session.flush()
    _settle(session, signer, lock_open_requests(session, job_id))


def settle_lineage(session: Session, signer: Signer, lineage_id: str) -> None:
    """Bring the requests of a lineage that has just been retired up to date."""
    session.flush()
    _settle(session, signer, lock_open_requests_of_lineage(session, lineage_id))


def settle_request(session: Session, signer: Signer, request: DeletionRequest) -> None:
    """Bring one request up to date that the caller has locked."""
    _settle(session, signer, {request.request_id: request})


def settle_left_behind(session: Session, signer: Signer) -> None:
    """Bring requests up to date that count as under way and have no open job.

    The end of a job settles its requests in the same transaction, so that there are none of these
    unless something went wrong; none may stay so for ever.
    """
    still = (
        select(RequestJob.job_id)
        .join(Job, Job.job_id == RequestJob.job_id)
        .where(
            RequestJob.request_id == DeletionRequest.request_id,
            RequestJob.relation != "excluded",
            Job.finished_time.is_(None),
        )
    )
    query = (
        select(DeletionRequest)
        .where(text(UNDER_WAY), ~still.exists())
        .order_by(DeletionRequest.request_id)
        .limit(_ROUND)
        .with_for_update(key_share=True, skip_locked=True)
    )
    found = session.scalars(query, execution_options={"populate_existing": True})
    _settle(session, signer, {request.request_id: request for request in found})


def _settle(session: Session, signer: Signer, requests: dict[str, DeletionRequest]) -> None:
    for row in session.execute(_STATE, {"request_ids": list(requests)}):
        request = requests[row.request_id]
        if row.failed is not None:
            job = session.get_one(Job, row.failed)
            message = (job.error or {}).get("message", "no reason was given")
            request.status = "needs_attention"
            request.status_reason = f"Job {job.job_id} {job.status}: {message}"
        elif row.refused is not None:
            request.status = "needs_attention"
            request.status_reason = request.status_reason or (
                f"The version that training {row.refused} made has learned the pairs and was given no"
                " job to forget them. Retry the request."
            )
        elif not row.open:
            complete(session, signer, request)
    session.flush()


def lock_open_requests(session: Session, job_id: str) -> dict[str, DeletionRequest]:
    """Lock the open requests of a job: after jobs and datasets, before the ledger."""
    return _lock_open(session, RequestJob.job_id == job_id)


def lock_open_requests_of_lineage(session: Session, lineage_id: str) -> dict[str, DeletionRequest]:
    """Lock the open requests that have or had a job on a lineage, as `lock_open_requests` does."""
    jobs = select(Job.job_id).where(Job.lineage_id == lineage_id)
    return _lock_open(session, RequestJob.job_id.in_(jobs))


def _lock_open(session: Session, linked: ColumnElement[bool]) -> dict[str, DeletionRequest]:
    query = (
        select(DeletionRequest)
        .where(
            DeletionRequest.request_id.in_(select(RequestJob.request_id).where(linked)),
            DeletionRequest.status.in_(OPEN),
        )
        .order_by(DeletionRequest.request_id)
        .with_for_update(key_share=True)
    )
    found = session.scalars(query, execution_options={"populate_existing": True})
    return {request.request_id: request for request in found}


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
    versions, earlier = outcome.standing(session, request)
    gone = origins(session, request, versions)
    guarantee, limitations = _promise(request, versions)
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
        reference_models=request.reference_models,
        guarantee=guarantee,
        limitations=limitations,
        pair_count=request.pair_count,
        already_forgotten_count=request.already_forgotten_count,
        not_trained_count=request.not_trained_count,
        pairs_commitment=pairs_commitment(request.salt or b"", pair_ids),
        versions=[_certified(request, one, gone[one.version.version_id]) for one in versions],
        retired_versions=outcome.retired(session, request, versions),
        earlier_requests=earlier,
    )


def _promise(
    request: DeletionRequest, versions: Sequence[Standing]
) -> tuple[methods.Guarantee | Literal["not_needed"], list[str]]:
    """Return the weakest guarantee among the methods that made the versions, and all limitations."""
    used = dict.fromkeys(one.method_or(request.method) for one in versions)
    promises = [methods.promise(name) for name in used]
    if not promises:
        return "not_needed", []
    exact = all(guarantee == "exact" for guarantee, _ in promises)
    limitations = dict.fromkeys(sentence for _, said in promises for sentence in said)
    return "exact" if exact else "approximate", list(limitations)


def _certified(request: DeletionRequest, one: Standing, gone: Sequence[Origin]) -> CertifiedVersion:
    made = request.request_id in one.made_for
    metrics = one.audit.metrics if one.audit is not None else []
    return CertifiedVersion(
        version_id=one.version.version_id,
        input_version_id=one.version.parent_id or "",
        checkpoint_sha256=one.version.checkpoint_sha256 or "",
        weights_sha256=one.version.weights_sha256 or "",
        method=one.method_or(request.method),
        made_for_request=made,
        reference_models=reference_models_of(metrics),
        forgotten_in=[
            ForgottenIn(version_id=origin.version_id, pair_count=origin.pair_count)
            for origin in gone
        ],
        metrics=key_metrics(
            metrics, request.request_id, made_for_request=made, attacked=one.attacked
        ),
    )
