"""Writing an accepted request: its row, its pairs, its jobs and its leaf, in as few statements as can be."""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Integer, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from app.core.tables import new_id
from app.deletions.queries import Line, Resolved
from app.deletions.schemas import NewRequest, RequestJobView, RequestView, links_of
from app.deletions.tables import DeletionRequest, RequestJob
from app.jobs.queue import Queue
from app.jobs.service import enqueue_unlearning
from app.ledger import log
from app.ledger.records import RequestReceived, pairs_commitment

# The deadline is one calendar month later (GDPR art. 12(3)), counted in UTC whatever the session's
# zone. The dataset is held, so the statement's time also says in which order requests were accepted
# (the transaction's own would not: it may have waited). A job is joined only while nobody has ever
# claimed it; the lock keeps a worker from doing so until we commit.
_INSERT = text(
    """
    WITH request AS (
        INSERT INTO deletion_requests (request_id, dataset_id, status, reason, scope, objective, method,
            update, params, reference_models, versions, pair_count, named_total,
            already_forgotten_count, not_trained_count, salt, submitted_by, submitted_time, deadline)
        VALUES (:request_id, :dataset_id, 'pending', :reason, :scope, :objective, :method,
            :update, :params, :reference_models, :versions, :pair_count, :named_total,
            :already, :not_trained, :salt, :token_id, statement_timestamp(),
            (statement_timestamp() AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC')
        RETURNING submitted_time, deadline),
    named AS (
        INSERT INTO deletion_request_pairs (request_id, pair_id, dataset_id)
        SELECT :request_id, unnest(CAST(:pair_ids AS text[])), :dataset_id),
    joined AS MATERIALIZED (
        SELECT job_id, lineage_id FROM jobs
        WHERE lineage_id = ANY(:lineages) AND kind = 'unlearn' AND status = 'queued'
          AND finished_time IS NULL AND fencing_token = 0 AND spec - 'reference_models' = :shared
        FOR SHARE),
    raised AS (
        UPDATE jobs SET spec = jobs.spec || jsonb_build_object('reference_models', :reference_models)
        FROM joined WHERE jobs.job_id = joined.job_id
          AND coalesce(CAST(jobs.spec ->> 'reference_models' AS integer), 0) < :reference_models),
    links AS (
        INSERT INTO deletion_request_jobs (request_id, job_id, relation)
        SELECT :request_id, job_id, 'forget' FROM joined
        UNION ALL SELECT :request_id, unnest(CAST(:trainings AS text[])), 'awaits')
    SELECT submitted_time, deadline, (SELECT jsonb_object_agg(lineage_id, job_id) FROM joined) AS joined
    FROM request
    """
).bindparams(
    bindparam("params", type_=JSONB),
    bindparam("versions", type_=JSONB(none_as_null=True)),
    bindparam("shared", type_=JSONB),
    bindparam("reference_models", type_=Integer),
)


def shared_spec(request: NewRequest | DeletionRequest) -> dict[str, Any]:
    """Return what requests must agree on to share a job."""
    names = ("method", "params", "update", "objective")
    return {name: getattr(request, name) for name in names}


def job_spec(shared: Mapping[str, Any], reference_models: Iterable[int]) -> dict[str, Any]:
    """Return the spec of an unlearning job for requests that share it.

    Args:
        shared: what they agree on.
        reference_models: the number that each of them asks for. The largest one meets all: more
            models only sharpen the attack, and a second job would be attacked less well, since
            reference models do not repeat what earlier jobs forgot.
    """
    return {**shared, "reference_models": max(reference_models, default=0)}


def record(
    session: Session,
    queue: Queue,
    token_id: str,
    new: NewRequest,
    found: Resolved,
    lines: Sequence[Line],
    trainings: Sequence[Line],
) -> RequestView:
    """Write a request with one unlearning job for each of ``lines``, joining jobs that still wait.

    The ledger's leaf comes last, since the log stays locked from there to the commit.
    """
    values = _values(token_id, new, found)
    values["lineages"] = [line.lineage_id for line in lines]
    values["trainings"] = [line.job_id for line in trainings]
    row = session.execute(_INSERT, values).one()
    joined: dict[str, str] = row.joined or {}
    jobs = {line.lineage_id: joined.get(line.lineage_id) for line in lines}
    for line in lines:
        if jobs[line.lineage_id] is None:
            jobs[line.lineage_id] = _new_job(session, queue, values["request_id"], new, line)
    view = _view(new, values, row, jobs, trainings)
    # One without a job is completed at once, and that appends more.
    append = log.append_quickly if view.jobs else log.append
    append(session, _leaf(token_id, view, values))
    return view


def _values(token_id: str, new: NewRequest, found: Resolved) -> dict[str, Any]:
    return {
        "request_id": new_id("req"),
        "dataset_id": new.dataset_id,
        "reason": new.reason,
        "scope": new.scope,
        "objective": new.objective,
        "method": new.method,
        "update": new.update,
        "params": new.params,
        "versions": new.versions,
        "pair_count": len(found.pair_ids),
        "named_total": found.named_total + len(found.pair_ids),
        "already": found.already,
        "not_trained": len(found.pair_ids) - found.train_count,
        "salt": secrets.token_bytes(32),
        "token_id": token_id,
        "pair_ids": found.pair_ids,
        "reference_models": new.audit.reference_models,
        "shared": shared_spec(new),
    }


def _new_job(session: Session, queue: Queue, request_id: str, new: NewRequest, line: Line) -> str:
    job = enqueue_unlearning(
        session,
        queue,
        model_id=line.model_id,
        dataset_id=new.dataset_id,
        lineage_id=line.lineage_id,
        spec=job_spec(shared_spec(new), [new.audit.reference_models]),
    )
    session.add(RequestJob(request_id=request_id, job_id=job.job_id, relation="forget"))
    session.flush()
    return job.job_id


def _view(
    new: NewRequest,
    values: dict[str, Any],
    row: Any,
    jobs: dict[str, str | None],
    trainings: Sequence[Line],
) -> RequestView:
    views = [
        RequestJobView(
            job_id=job_id or "", status="queued", relation="forget", lineage_id=lineage_id
        )
        for lineage_id, job_id in jobs.items()
    ]
    views += [
        RequestJobView(
            job_id=line.job_id or "",
            status="running",
            relation="awaits",
            lineage_id=line.lineage_id,
        )
        for line in trainings
    ]
    return RequestView(
        **new.model_dump(exclude={"targets"}),
        request_id=values["request_id"],
        status="pending",
        submitted_time=row.submitted_time,
        deadline=row.deadline,
        pair_count=values["pair_count"],
        already_forgotten_count=values["already"],
        not_trained_count=values["not_trained"],
        jobs=views,
        links=links_of(values["request_id"]),
    )


def _leaf(token_id: str, view: RequestView, values: dict[str, Any]) -> RequestReceived:
    return RequestReceived(
        request_id=view.request_id,
        dataset_id=view.dataset_id,
        pair_count=view.pair_count,
        already_forgotten_count=view.already_forgotten_count,
        not_trained_count=view.not_trained_count,
        pairs_commitment=pairs_commitment(values["salt"], values["pair_ids"]),
        scope=view.scope,
        objective=view.objective,
        method=view.method,
        update=view.update,
        reference_models=view.audit.reference_models,
        deadline=view.deadline,
        job_ids=[job.job_id for job in view.jobs],
        token_id=token_id,
    )
