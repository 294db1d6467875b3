"""Which versions stand for a request: those made for it, and those that had forgotten its pairs already."""

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, select, text
from sqlalchemy.orm import Session

from app.audit.tables import Audit
from app.deletions import queries
from app.deletions.tables import DeletionRequest, RequestJob
from app.jobs.tables import Job
from app.registry.tables import Model, Version


@dataclass(frozen=True)
class Standing:
    """A version that has forgotten a request's pairs.

    Attributes:
        maker: the job that made the version.
        audit: what that job measured on it; it covers all that the version has ever forgotten.
        made_for: requests of which the job forgot pairs. For any other request the version was
            there already.
    """

    version: Version
    model: Model
    maker: Job | None
    audit: Audit | None
    made_for: frozenset[str]

    def method_or(self, otherwise: str) -> str:
        """Return the method that made the version."""
        spec = self.maker.spec if self.maker is not None else {}
        return str(spec.get("method", otherwise))

    @property
    def attacked(self) -> bool:
        """Whether the job that made it was to make reference models."""
        spec = self.maker.spec if self.maker is not None else {}
        return bool(spec.get("reference_models"))


def stated(request: DeletionRequest) -> dict[str, Any]:
    """Return what the request's certificate states; empty without one."""
    if request.certificate is None:
        return {}
    payload = base64.b64decode(request.certificate["dsseEnvelope"]["payload"])
    predicate: dict[str, Any] = json.loads(payload)["predicate"]
    return predicate


def shown(session: Session, request: DeletionRequest) -> list[Standing]:
    """Return the versions that the request's certificate states, or those that there are so far."""
    if request.certificate is not None:
        return _load(session, [one["version_id"] for one in stated(request)["versions"]])
    newest, _ = _newest(_outputs(session, [request.request_id]))
    return _load(session, newest.values())


def standing(session: Session, request: DeletionRequest) -> tuple[list[Standing], list[str]]:
    """Return what a request that is being completed stands on.

    These are the newest version of each lineage that its jobs led to, and of each lineage without a
    job of its own, since all had been forgotten there, the newest of earlier requests.

    Returns:
        versions in the order of their lineages; earlier requests of some of the same pairs that
        these versions forgot too.
    """
    rows = _outputs(session, [request.request_id, *_overlapping(session, request.request_id)])
    mine = [row for row in rows if row.request_id == request.request_id]
    theirs = [row for row in rows if row.request_id != request.request_id]
    excepted = _not_asked(session, request)
    newest, numbers = _newest([*mine, *(r for r in theirs if r.lineage_id not in excepted)])
    earlier = {r.request_id for r in theirs if r.number <= numbers.get(r.lineage_id, 0)}
    return _load(session, [newest[line] for line in sorted(newest)]), sorted(earlier)


def retired(session: Session, request: DeletionRequest, but: Iterable[Standing]) -> list[str]:
    """Return the newest version of each retired lineage that learned pairs of the request and was left.

    Args:
        session: a transaction.
        request: it reaches lineages that are in use when it is completed, or until now.
        but: versions that forgot its pairs before they were retired.
    """
    if "retired_versions" in (said := stated(request)):
        return list(said["retired_versions"])
    values = {
        "request_id": request.request_id,
        "dataset_id": request.dataset_id,
        "listed": request.versions,
        "until": request.completed_time,
        "but": [one.version.lineage_id for one in but],
    }
    return list(session.execute(_RETIRED, values).scalars())


_LEFT_OUT = queries.FORGOTTEN.format(
    dataset="named.dataset_id", pair="named.pair_id", lineage="tip.lineage_id", meets="false"
)
_RETIRED = text(
    f"""
    SELECT DISTINCT ON (lineage_id) version_id FROM versions AS tip
    WHERE dataset_id = :dataset_id AND status = 'retired'
      AND retired_time <= coalesce(CAST(:until AS timestamptz), clock_timestamp())
      AND NOT lineage_id = ANY(CAST(:but AS text[]))
      AND NOT EXISTS (SELECT 1 FROM versions AS newer
                      WHERE newer.lineage_id = tip.lineage_id AND newer.status = 'ready')
      AND (CAST(:listed AS text[]) IS NULL OR lineage_id IN (
           SELECT lineage_id FROM versions WHERE version_id = ANY(CAST(:listed AS text[]))))
      AND EXISTS (SELECT 1 FROM deletion_request_pairs AS named
                  JOIN pairs ON pairs.dataset_id = named.dataset_id AND pairs.pair_id = named.pair_id
                  WHERE named.request_id = :request_id AND pairs.split = 'train' AND NOT {_LEFT_OUT})
    ORDER BY lineage_id, number DESC
    """  # noqa: S608 - constants only
)
_OVERLAPPING = text(
    """
    SELECT DISTINCT other.request_id FROM deletion_requests AS request
    JOIN deletion_request_pairs AS mine USING (request_id)
    JOIN deletion_request_pairs AS theirs
        ON theirs.dataset_id = mine.dataset_id AND theirs.pair_id = mine.pair_id
    JOIN deletion_requests AS other ON other.request_id = theirs.request_id
    WHERE request.request_id = :request_id AND other.submitted_time < request.submitted_time
    """
)
# Lineages on which nothing but the request's own jobs counts, or that it does not reach.
_NOT_ASKED = text(
    """
    SELECT job.lineage_id FROM deletion_request_jobs JOIN jobs AS job USING (job_id)
    WHERE request_id = :request_id
    UNION
    SELECT lineage_id FROM versions
    WHERE dataset_id = :dataset_id AND status = 'retired' AND retired_time < :submitted
      AND NOT EXISTS (SELECT 1 FROM versions AS newer
                      WHERE newer.lineage_id = versions.lineage_id AND newer.status = 'ready')
    UNION
    SELECT lineage_id FROM versions
    WHERE dataset_id = :dataset_id AND CAST(:listed AS text[]) IS NOT NULL
      AND lineage_id NOT IN (
          SELECT lineage_id FROM versions WHERE version_id = ANY(CAST(:listed AS text[])))
    """
)


def _overlapping(session: Session, request_id: str) -> list[str]:
    return list(session.execute(_OVERLAPPING, {"request_id": request_id}).scalars())


def _not_asked(session: Session, request: DeletionRequest) -> set[str]:
    values = {
        "request_id": request.request_id,
        "dataset_id": request.dataset_id,
        "submitted": request.submitted_time,
        "listed": request.versions,
    }
    return set(session.execute(_NOT_ASKED, values).scalars())


def _outputs(session: Session, request_ids: Sequence[str]) -> Sequence[Row[str, str, str, int]]:
    """Return request and unlearned version of every job that ended well for these requests."""
    query = (
        select(RequestJob.request_id, Version.version_id, Version.lineage_id, Version.number)
        .join(Job, Job.job_id == RequestJob.job_id)
        .join(Version, Version.version_id == Job.output_version_id)
        .where(
            RequestJob.request_id.in_(request_ids),
            RequestJob.relation == "forget",
            Job.status == "succeeded",
            Version.parent_id.is_not(None),
        )
    )
    return session.execute(query).all()


def _newest(
    rows: Iterable[Row[str, str, str, int]],
) -> tuple[dict[str, str], dict[str, int]]:
    """Return lineage -> its newest version, and lineage -> that version's number."""
    ordered = sorted(rows, key=lambda row: row.number)
    return (
        {row.lineage_id: row.version_id for row in ordered},
        {row.lineage_id: row.number for row in ordered},
    )


def _load(session: Session, version_ids: Iterable[str]) -> list[Standing]:
    ids = list(version_ids)
    query = (
        select(Version, Model, Job, Audit)
        .join(Model, Model.model_id == Version.model_id)
        .outerjoin(Job, Job.job_id == Version.job_id)
        .outerjoin(Audit, Audit.job_id == Version.job_id)
        .where(Version.version_id.in_(ids))
    )
    rows = {row[0].version_id: row for row in session.execute(query)}
    makers = [row[0].job_id for row in rows.values()]
    made_for = _made_for(session, [job_id for job_id in makers if job_id])
    found = []
    for version, model, maker, audit in (rows[one] for one in ids if one in rows):
        requests = made_for.get(version.job_id or "", frozenset())
        found.append(Standing(version, model, maker, audit, requests))
    return found


def _made_for(session: Session, job_ids: Sequence[str]) -> dict[str, frozenset[str]]:
    """Return job -> the requests of which it forgot pairs; one may have found none of its own left."""
    query = (
        select(RequestJob.job_id, RequestJob.request_id, Job.result)
        .join(Job, Job.job_id == RequestJob.job_id)
        .where(RequestJob.job_id.in_(job_ids), RequestJob.relation == "forget")
    )
    found: dict[str, set[str]] = {}
    for job_id, request_id, result in session.execute(query):
        if request_id in (result or {}).get("request_ids", [request_id]):
            found.setdefault(job_id, set()).add(request_id)
    return {job_id: frozenset(ids) for job_id, ids in found.items()}
