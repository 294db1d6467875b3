"""What a job has to forget, and what its lineage forgot before: the pairs that a run is told."""

from collections.abc import Mapping, Sequence

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from app.deletions.queries import FORGOTTEN

Pairs = dict[str, list[str]]

_TO_FORGET = text(
    f"""
    SELECT named.request_id, array_agg(named.pair_id ORDER BY named.pair_id)
    FROM deletion_request_jobs AS mine JOIN deletion_requests AS request USING (request_id)
    JOIN deletion_request_pairs AS named USING (request_id)
    JOIN pairs ON pairs.dataset_id = named.dataset_id AND pairs.pair_id = named.pair_id
    JOIN jobs AS job ON job.job_id = mine.job_id
    WHERE mine.job_id = :job_id AND mine.relation = 'forget' AND pairs.split = 'train'
      AND request.status NOT IN ('cancelled', 'denied')
      AND NOT {
        FORGOTTEN.format(
            dataset="named.dataset_id",
            pair="named.pair_id",
            lineage="job.lineage_id",
            meets="(:methods -> request.scope) ? (done.spec ->> 'method')",
        )
    }
    GROUP BY named.request_id ORDER BY named.request_id
    """  # noqa: S608 - constants only
).bindparams(bindparam("methods", type_=JSONB))

_FORGOTTEN_BEFORE = text(
    """
    SELECT named.request_id, array_agg(DISTINCT named.pair_id ORDER BY named.pair_id)
    FROM jobs AS done JOIN deletion_request_jobs AS link USING (job_id)
    JOIN deletion_request_pairs AS named USING (request_id)
    JOIN pairs ON pairs.dataset_id = named.dataset_id AND pairs.pair_id = named.pair_id
    WHERE done.lineage_id = :lineage_id AND done.status = 'succeeded'
      AND link.relation IN ('forget', 'excluded') AND pairs.split = 'train'
    GROUP BY named.request_id ORDER BY named.request_id
    """
)

_LEFT_OUT = text(
    """
    SELECT named.request_id, array_agg(named.pair_id ORDER BY named.pair_id)
    FROM deletion_request_jobs AS link JOIN deletion_request_pairs AS named USING (request_id)
    JOIN pairs ON pairs.dataset_id = named.dataset_id AND pairs.pair_id = named.pair_id
    WHERE link.job_id = :job_id AND link.relation = 'excluded' AND pairs.split = 'train'
    GROUP BY named.request_id ORDER BY named.request_id
    """
)

_TRAINING_PAIRS = text(
    """
    SELECT named.request_id, array_agg(named.pair_id ORDER BY named.pair_id)
    FROM deletion_request_pairs AS named
    JOIN pairs ON pairs.dataset_id = named.dataset_id AND pairs.pair_id = named.pair_id
    WHERE named.request_id = ANY(CAST(:request_ids AS text[])) AND pairs.split = 'train'
    GROUP BY named.request_id ORDER BY named.request_id
    """
)


def to_forget(session: Session, job_id: str, methods: Mapping[str, Sequence[str]]) -> Pairs:
    """Return request -> its training pairs that the job's lineage has not forgotten yet.

    Args:
        session: a transaction.
        job_id: an unlearning job.
        methods: scope -> the methods that meet it.
    """
    values = {"job_id": job_id, "methods": {scope: list(names) for scope, names in methods.items()}}
    return _pairs(session, _TO_FORGET, values)


def forgotten_before(session: Session, lineage_id: str) -> Pairs:
    """Return request -> its training pairs, of all requests that the lineage has met so far."""
    return _pairs(session, _FORGOTTEN_BEFORE, {"lineage_id": lineage_id})


def left_out(session: Session, job_id: str) -> Pairs:
    """Return request -> its training pairs, of all requests that a training job leaves out."""
    return _pairs(session, _LEFT_OUT, {"job_id": job_id})


def training_pairs(session: Session, request_ids: Sequence[str]) -> Pairs:
    """Return request -> all of its training pairs, forgotten or not."""
    return _pairs(session, _TRAINING_PAIRS, {"request_ids": list(request_ids)})


def without(pairs: Pairs, taken: Pairs) -> Pairs:
    """Return ``pairs`` without those that occur in ``taken``, and without requests that have none left."""
    names = {pair_id for ids in taken.values() for pair_id in ids}
    rest = {request: [one for one in ids if one not in names] for request, ids in pairs.items()}
    return {request: ids for request, ids in rest.items() if ids}


def _pairs(session: Session, statement: object, values: Mapping[str, object]) -> Pairs:
    rows = session.execute(statement, values)  # type: ignore[call-overload]
    return {request_id: list(ids) for request_id, ids in rows}
