"""Writing an accepted request: its row, its pairs, its jobs and its leaf, in as few statements as can be."""

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb
from sqlalchemy.orm import Session

from app.core.tables import new_id
from app.deletions.queries import Line, Resolved
from app.deletions.schemas import NewRequest, RequestJobView, RequestView, links_of
from app.deletions.tables import DeletionRequest
from app.jobs.queue import Queue
from app.jobs.service import enqueue_unlearning
from app.ledger import log
from app.ledger.records import RequestReceived, pairs_commitment

_INSERT = """
    WITH request AS (
        INSERT INTO deletion_requests (request_id, dataset_id, status, reason, scope, objective, method,
            update, params, reference_models, versions, pair_count, named_total,
            already_forgotten_count, not_trained_count, salt, submitted_by, submitted_time, deadline)
        VALUES (%(request_id)s, %(dataset_id)s, 'pending', %(reason)s, %(scope)s, %(objective)s,
            %(method)s, %(update)s, %(params)s, %(reference_models)s, %(versions)s, %(pair_count)s,
            %(named_total)s, %(already)s, %(not_trained)s, %(salt)s, %(token_id)s,
            %(submitted_time)s, %(deadline)s)),
    named AS (
        INSERT INTO deletion_request_pairs (request_id, pair_id, dataset_id)
        SELECT %(request_id)s, unnest(CAST(%(pair_ids)s AS text[])), %(dataset_id)s),
    raised AS (
        UPDATE jobs SET spec = spec || jsonb_build_object(
            'reference_models', CAST(%(reference_models)s AS integer))
        WHERE job_id = ANY(CAST(%(jobs)s AS text[]))
          AND coalesce(CAST(spec ->> 'reference_models' AS integer), 0) < %(reference_models)s)
    INSERT INTO deletion_request_jobs (request_id, job_id, relation)
    SELECT %(request_id)s, unnest(CAST(%(jobs)s AS text[])), 'forget'
    UNION ALL SELECT %(request_id)s, unnest(CAST(%(trainings)s AS text[])), 'awaits'
"""


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


@dataclass(frozen=True)
class Draft:
    """What a request is given before its dataset is held, so that it is held for no longer than it must.

    Attributes:
        new: the request.
        token_id: of the caller.
        request_id: its id.
        salt: of its commitment.
        commitment: to its pairs, where it names them all.
    """

    new: NewRequest
    token_id: str
    request_id: str
    salt: bytes
    commitment: str | None


def draft(token_id: str, new: NewRequest) -> Draft:
    """Return the draft of a request."""
    salt, named = secrets.token_bytes(32), new.targets.distinct()
    only_pairs = named.keys() == {"pair_ids"}
    commitment = pairs_commitment(salt, named["pair_ids"]) if only_pairs else None
    return Draft(new, token_id, new_id("req"), salt, commitment)


def record(
    session: Session,
    queue: Queue,
    begun: Draft,
    found: Resolved,
    lines: Sequence[Line],
    trainings: Sequence[Line],
) -> RequestView:
    """Write a request with one unlearning job for each of ``lines``, joining jobs that still wait.

    They are sent together with the ledger's leaf and the commit, so that the dataset, which other
    requests wait for, is not held while they are on their way.
    """
    new = begun.new
    jobs = {
        line.lineage_id: line.waiting_job_id or _new_job(session, queue, new, line)
        for line in lines
    }
    view = _view(begun, found, jobs, trainings)
    values = _values(begun, found)
    values["jobs"] = list(jobs.values())
    values["trainings"] = [line.job_id for line in trainings]
    leaf = _leaf(begun, view, found)
    if view.jobs:
        log.append_quickly(session, leaf, after=[(_INSERT, values)])
    else:  # it is completed at once, and that appends more
        session.connection().exec_driver_sql(_INSERT, values)
        log.append(session, leaf)
    return view


def _values(begun: Draft, found: Resolved) -> dict[str, Any]:
    new = begun.new
    return {
        "request_id": begun.request_id,
        "dataset_id": new.dataset_id,
        "reason": new.reason,
        "scope": new.scope,
        "objective": new.objective,
        "method": new.method,
        "update": new.update,
        "params": Jsonb(new.params),
        "versions": None if new.versions is None else Jsonb(new.versions),
        "pair_count": len(found.pair_ids),
        "named_total": found.named_total + len(found.pair_ids),
        "already": found.already,
        "not_trained": len(found.pair_ids) - found.train_count,
        "salt": begun.salt,
        "token_id": begun.token_id,
        "pair_ids": found.pair_ids,
        "reference_models": new.audit.reference_models,
        "submitted_time": found.submitted_time,
        "deadline": found.deadline,
    }


def _new_job(session: Session, queue: Queue, new: NewRequest, line: Line) -> str:
    job = enqueue_unlearning(
        session,
        queue,
        model_id=line.model_id,
        dataset_id=new.dataset_id,
        lineage_id=line.lineage_id,
        spec=job_spec(shared_spec(new), [new.audit.reference_models]),
    )
    return job.job_id


def _view(
    begun: Draft, found: Resolved, jobs: dict[str, str], trainings: Sequence[Line]
) -> RequestView:
    views = [
        RequestJobView(job_id=job_id, status="queued", relation="forget", lineage_id=lineage_id)
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
        **begun.new.model_dump(exclude={"targets"}),
        request_id=begun.request_id,
        status="pending",
        submitted_time=found.submitted_time,
        deadline=found.deadline,
        pair_count=len(found.pair_ids),
        already_forgotten_count=found.already,
        not_trained_count=len(found.pair_ids) - found.train_count,
        jobs=views,
        links=links_of(begun.request_id),
    )


def _leaf(begun: Draft, view: RequestView, found: Resolved) -> RequestReceived:
    return RequestReceived(
        request_id=view.request_id,
        dataset_id=view.dataset_id,
        pair_count=view.pair_count,
        already_forgotten_count=view.already_forgotten_count,
        not_trained_count=view.not_trained_count,
        pairs_commitment=begun.commitment or pairs_commitment(begun.salt, found.pair_ids),
        scope=view.scope,
        objective=view.objective,
        method=view.method,
        update=view.update,
        reference_models=view.audit.reference_models,
        deadline=view.deadline,
        job_ids=[job.job_id for job in view.jobs],
        token_id=begun.token_id,
    )
