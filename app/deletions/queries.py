"""What the database knows about pairs and deletions, each question in one statement.

``forgotten`` on a lineage means: a succeeded unlearning job of the lineage forgot the pair with a
method that meets the scope, or the training that began the lineage had left it out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from psycopg.types.json import Jsonb
from sqlalchemy import text
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.orm import Session

from app.core.together import send_together

_SHOWN = 20
Unknown = dict[str, tuple[list[str], int]]
"""Kind of target -> the first ids that the dataset does not have, and the count of all."""
# Rows that only refer to the dataset are not kept waiting.
_HOLD = "SELECT 1 FROM datasets WHERE dataset_id = %(dataset_id)s FOR NO KEY UPDATE"
_DIALECT = PGDialect_psycopg()  # type: ignore[no-untyped-call]

_COLUMNS = {
    "pair_ids": ("pair_id",),
    "item_ids": ("item_id", "second_item_id"),
    "text_ids": ("text_id",),
}
# OFFSET 0 keeps each of these a look-up in an index, one for each target or pair. Without it the
# planner, which knows nothing about a table that is filling up, may read every pair of the dataset
# instead.
_HITS = """
    SELECT hit.pair_id, hit.split FROM unnest(CAST(:{kind} AS text[])) AS target CROSS JOIN LATERAL (
        SELECT pair_id, split FROM pairs
        WHERE dataset_id = :dataset_id AND {column} = target OFFSET 0) AS hit
"""
# On every lineage that the request reaches, an earlier request asked for the pair by a method that
# meets the scope, or a job forgot it.
_ASKED_BEFORE = """
    EXISTS (SELECT 1 FROM lines) AND NOT EXISTS (SELECT 1 FROM lines AS line WHERE NOT EXISTS (
        SELECT 1 FROM deletion_request_pairs AS earlier
        JOIN deletion_requests AS asked USING (request_id)
        JOIN deletion_request_jobs AS link USING (request_id) JOIN jobs AS done USING (job_id)
        WHERE earlier.dataset_id = :dataset_id AND earlier.pair_id = hits.pair_id
          AND done.lineage_id = line.lineage_id
          AND (link.relation = 'excluded' OR asked.method = ANY(:methods))
          AND (asked.status NOT IN ('cancelled', 'denied')
               OR (link.relation <> 'awaits' AND done.status = 'succeeded'))
        OFFSET 0))
"""
_NAMED_BEFORE = """
    EXISTS (SELECT 1 FROM deletion_request_pairs AS earlier JOIN deletion_requests USING (request_id)
            WHERE earlier.dataset_id = :dataset_id AND earlier.pair_id = {pair}
              AND status NOT IN ('cancelled', 'denied')
            OFFSET 0)
"""
FORGOTTEN = """
    EXISTS (SELECT 1 FROM deletion_request_pairs AS earlier
            JOIN deletion_request_jobs AS link USING (request_id) JOIN jobs AS done USING (job_id)
            WHERE earlier.dataset_id = {dataset} AND earlier.pair_id = {pair}
              AND done.lineage_id = {lineage} AND done.status = 'succeeded'
              AND (link.relation = 'excluded'
                   OR (link.relation = 'forget' AND {meets}))
            OFFSET 0)
"""


@dataclass(frozen=True)
class Line:
    """A lineage that learned from the dataset, or (``training``) a running job that is learning from it.

    Attributes:
        lineage_id: the lineage; for a running training the id that its version will have.
        job_id: the running training.
        open: some training pair that was asked for is not forgotten on it yet.
        versions: those of the listed versions that belong to it.
        waiting_job_id: an unlearning job that nobody has ever claimed, and that the request can join.
    """

    lineage_id: str
    model_id: str
    family: str
    task: str
    open: bool
    versions: tuple[str, ...] = ()
    job_id: str | None = None
    waiting_job_id: str | None = None


@dataclass(frozen=True)
class Resolved:
    """What the targets of a request mean; to be relied on only while the dataset is held.

    Attributes:
        status: of the dataset; None where there is no such dataset.
        train_total: training pairs of the dataset.
        validation_total: its validation pairs.
        train_count: training pairs among the targets.
        already: of these, pairs that were forgotten or asked for before (`_ASKED_BEFORE`).
        named_total: pairs named on the dataset up to now, repeated ones counted again.
        lines: lineages that the request reaches, without running trainings.
        trainings: trainings that run now.
        retired: those of the listed versions that are out of use.
        submitted_time: the time by which requests count as earlier and later ones.
        deadline: one calendar month later (GDPR art. 12(3)), counted in UTC whatever the session's zone.
    """

    status: str | None
    train_total: int
    validation_total: int
    pair_ids: list[str]
    train_count: int
    already: int
    named_total: int
    unknown: Unknown
    lines: list[Line]
    trainings: list[Line]
    retired: list[str]
    submitted_time: datetime
    deadline: datetime


@lru_cache
def _resolve_statement(kinds: tuple[str, ...], listed: bool) -> str:
    hits = " UNION ".join(
        _HITS.format(kind=kind, column=column) for kind in kinds for column in _COLUMNS[kind]
    )
    missing = "".join(f", {_missing(kind)}" for kind in kinds if kind != "pair_ids")
    forgotten = FORGOTTEN.format(
        dataset=":dataset_id",
        pair="hits.pair_id",
        lineage="line.lineage_id",
        meets="done.spec ->> 'method' = ANY(:methods)",
    )
    statement = text(
        f"""
        WITH hits AS MATERIALIZED ({hits}),
        lines AS MATERIALIZED ({_LISTED_LINES if listed else _ALL_LINES}),
        reached AS MATERIALIZED (
            SELECT line.*, EXISTS (SELECT 1 FROM hits WHERE split = 'train' AND NOT {forgotten}) AS open
            FROM lines AS line),
        {_JOINED}, {_NOW}
        SELECT (SELECT status FROM datasets WHERE dataset_id = :dataset_id) AS status,
            (SELECT split_counts FROM datasets WHERE dataset_id = :dataset_id) AS split_counts,
            (SELECT array_agg(pair_id) FROM hits) AS pair_ids,
            (SELECT count(*) FROM hits WHERE split = 'train') AS train_count,
            (SELECT count(*) FROM hits WHERE split = 'train' AND {_ASKED_BEFORE}) AS already,
            (SELECT max(named_total) FROM deletion_requests WHERE dataset_id = :dataset_id)
                AS named_total,
            (SELECT jsonb_agg(jsonb_build_object(
                'lineage_id', lineage_id, 'model_id', model_id, 'family', family, 'task', task,
                'versions', versions, 'job_id', job_id, 'open', open, 'waiting_job_id',
                (SELECT max(job_id) FROM joined WHERE joined.lineage_id = reached.lineage_id)))
             FROM reached) AS lines,
            {_RETIRED if listed else "NULL"} AS retired,
            submitted_time,
            (submitted_time AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC' AS deadline
            {missing}
        FROM now
        """  # noqa: S608 - put together from the constants of this file
    )
    return str(statement.compile(dialect=_DIALECT))


# A lineage has versions that are ready for as long as its newest one is: see `registry.retirement`.
_LISTED_LINES = """
    SELECT lineage_id, model_id, family, task, jsonb_agg(version_id) AS versions, NULL AS job_id
    FROM versions JOIN models USING (model_id)
    WHERE versions.dataset_id = :dataset_id AND versions.status = 'ready'
      AND version_id = ANY(:versions)
    GROUP BY lineage_id, model_id, family, task
"""
_ALL_LINES = """
    SELECT DISTINCT lineage_id, model_id, family, task, CAST(NULL AS jsonb) AS versions, NULL AS job_id
    FROM versions JOIN models USING (model_id)
    WHERE versions.dataset_id = :dataset_id AND versions.status = 'ready'
    UNION ALL
    SELECT lineage_id, model_id, family, task, NULL, job_id
    FROM jobs JOIN models USING (model_id)
    WHERE dataset_id = :dataset_id AND kind = 'train' AND finished_time IS NULL
      AND jobs.status IN ('preparing', 'running', 'auditing', 'cancelling')
"""
# A job is joined only while nobody has ever claimed it; the lock keeps a worker from doing so until
# we commit.
_JOINED = """
    joined AS MATERIALIZED (
        SELECT job_id, lineage_id FROM jobs
        WHERE lineage_id = ANY(ARRAY(SELECT lineage_id FROM reached WHERE open AND job_id IS NULL))
          AND kind = 'unlearn' AND status = 'queued' AND finished_time IS NULL
          AND fencing_token = 0 AND spec - 'reference_models' = CAST(:shared AS jsonb)
        FOR SHARE)
"""
# The dataset is held by now, so the clock also says in which order requests were accepted (the
# transaction's own time would not: it may have waited).
_NOW = "now AS MATERIALIZED (SELECT clock_timestamp() AS submitted_time)"
_RETIRED = """
    (SELECT array_agg(version_id) FROM versions
     WHERE dataset_id = :dataset_id AND status = 'retired' AND version_id = ANY(:versions))
"""


def _missing(kind: str) -> str:
    absent = " AND ".join(
        f"NOT EXISTS (SELECT 1 FROM pairs WHERE dataset_id = :dataset_id AND {column} = target OFFSET 0)"  # noqa: S608
        for column in _COLUMNS[kind]
    )
    return f"(SELECT array_agg(target) FROM unnest(CAST(:{kind} AS text[])) AS target WHERE {absent}) AS unknown_{kind}"  # noqa: S608


def resolve(
    session: Session,
    dataset_id: str,
    targets: dict[str, list[str]],
    versions: Sequence[str] | None,
    methods: Sequence[str],
    shared: Mapping[str, Any],
) -> Resolved:
    """Hold the dataset, as `hold_dataset` does, and find out what a request asks for.

    Jobs that it can join are locked, so that no worker begins with them meanwhile.

    Args:
        session: the caller's transaction.
        dataset_id: the dataset.
        targets: kind (``pair_ids``, ``item_ids``, ``text_ids``) -> distinct ids; no empty lists.
        versions: the versions listed by the caller, or None for every lineage.
        methods: the methods that meet the request's scope.
        shared: what a job that the request joins has to agree on.
    """
    statement = _resolve_statement(tuple(sorted(targets)), versions is not None)
    values: dict[str, Any] = {"dataset_id": dataset_id, "methods": list(methods), **targets}
    values["shared"] = Jsonb(shared)
    if versions is not None:
        values["versions"] = list(versions)
    # Two statements, each with a snapshot of its own: the second sees what was committed while the
    # first waited.
    row = send_together(session, [(_HOLD, {"dataset_id": dataset_id}), (statement, values)])
    pair_ids: list[str] = row["pair_ids"] or []
    missing = {kind: row.get(f"unknown_{kind}") or [] for kind in targets if kind != "pair_ids"}
    if "pair_ids" in targets:
        missing["pair_ids"] = list(set(targets["pair_ids"]).difference(pair_ids))
    splits: dict[str, int] = row["split_counts"] or {}
    reached = [_line(item) for item in row["lines"] or []]
    return Resolved(
        status=row["status"],
        train_total=int(splits.get("train", 0)),
        validation_total=int(splits.get("val", 0)),
        pair_ids=pair_ids,
        train_count=row["train_count"],
        already=row["already"],
        named_total=row["named_total"] or 0,
        unknown=_shown(missing),
        lines=[line for line in reached if line.job_id is None],
        trainings=[line for line in reached if line.job_id is not None],
        retired=sorted(row["retired"] or []),
        submitted_time=row["submitted_time"],
        deadline=row["deadline"],
    )


def unknown_targets(session: Session, dataset_id: str, targets: dict[str, list[str]]) -> Unknown:
    """Return the targets that a ready dataset does not have, without holding it; else nothing.

    Args:
        session: the caller's transaction.
        dataset_id: the dataset; its manifest does not change any more once it is ready.
        targets: as of `resolve`.
    """
    missing = ", ".join(_missing(kind) for kind in sorted(targets))
    statement = text(
        f"SELECT {missing} FROM datasets WHERE dataset_id = :dataset_id AND status = 'ready'"  # noqa: S608
    )
    row = session.execute(statement, {"dataset_id": dataset_id, **targets}).mappings().first()
    return _shown({kind: row[f"unknown_{kind}"] or [] for kind in targets} if row else {})


def _shown(missing: dict[str, list[str]]) -> Unknown:
    return {kind: (sorted(ids)[:_SHOWN], len(ids)) for kind, ids in missing.items() if ids}


def _line(item: dict[str, Any]) -> Line:
    return Line(**{**item, "versions": tuple(item.get("versions") or ())})


def hold_dataset(session: Session, dataset_id: str) -> None:
    """Keep what learns from a dataset, and what makes it forget, from missing each other.

    A request, the start and the end of a training, the end of an upload and a retirement hold the
    dataset before they look for one another, until they commit. So one of two that meet waits, and
    then sees the other; requests are accepted one after the other.
    """
    session.connection().exec_driver_sql(_HOLD, {"dataset_id": dataset_id})


_LEFT = text(
    f"""
    SELECT count(*) FROM (
        SELECT 1 FROM pairs WHERE dataset_id = :dataset_id AND split = 'train'
          AND pair_id NOT IN (SELECT unnest(CAST(:pair_ids AS text[])))
          AND NOT {_NAMED_BEFORE.format(pair="pairs.pair_id")}
        LIMIT :most) AS kept
    """  # noqa: S608 - constants of this file
)


def count_left(session: Session, dataset_id: str, pair_ids: list[str], most: int) -> int:
    """Count training pairs that neither earlier requests nor ``pair_ids`` name, up to ``most``."""
    values = {"dataset_id": dataset_id, "pair_ids": pair_ids, "most": most}
    return session.execute(_LEFT, values).scalar() or 0


_OPEN = text(
    """
    SELECT request_id FROM deletion_requests
    WHERE dataset_id = :dataset_id
      AND status IN ('pending', 'in_progress', 'needs_attention', 'on_hold')
    ORDER BY request_id
    """
)


def open_requests(session: Session, dataset_id: str) -> list[str]:
    """Return the requests of a dataset that have not ended, oldest first."""
    return list(session.execute(_OPEN, {"dataset_id": dataset_id}).scalars())


_COVERING = text(
    """
    SELECT request_id FROM deletion_requests AS other
    WHERE dataset_id = :dataset_id AND status = 'completed' AND met_by_request_id IS NULL
      AND pair_count >= :count AND method = ANY(:methods)
      AND (SELECT count(*) FROM deletion_request_pairs AS named
           WHERE named.request_id = other.request_id AND named.pair_id = ANY(:pair_ids)) = :count
      AND (SELECT count(DISTINCT job.lineage_id)
           FROM deletion_request_jobs AS link JOIN jobs AS job USING (job_id)
           WHERE link.request_id = other.request_id AND link.relation = 'forget'
             AND job.status = 'succeeded' AND job.lineage_id = ANY(:lineages))
          = cardinality(CAST(:lineages AS text[]))
    ORDER BY completed_time LIMIT 1
    """
)


def covering_request(
    session: Session, dataset_id: str, found: Resolved, methods: Sequence[str]
) -> str | None:
    """Return the first completed request that had all of this forgotten, on each of the lineages."""
    values = {
        "dataset_id": dataset_id,
        "pair_ids": found.pair_ids,
        "count": len(found.pair_ids),
        "lineages": [line.lineage_id for line in found.lines],
        "methods": list(methods),
    }
    covering: str | None = session.execute(_COVERING, values).scalar()
    return covering


def pair_ids_of(session: Session, request_id: str) -> list[str]:
    """Return every pair of a request, sorted."""
    query = "SELECT pair_id FROM deletion_request_pairs WHERE request_id = :request_id"
    return sorted(session.execute(text(query), {"request_id": request_id}).scalars())
