"""What the database knows about pairs and deletions, each question in one statement.

``forgotten`` on a lineage means: a succeeded unlearning job of the lineage forgot the pair with a
method that meets the scope, or the training that began the lineage had left it out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.orm import Session

_SHOWN = 20

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
    """

    lineage_id: str
    model_id: str
    family: str
    task: str
    open: bool
    versions: tuple[str, ...] = ()
    job_id: str | None = None


@dataclass(frozen=True)
class Resolved:
    """What the targets of a request mean.

    Attributes:
        status: of the dataset; None where there is no such dataset.
        train_total: training pairs of the dataset.
        trainings: trainings that run now; only while the dataset is held (`hold_dataset`) can it
            be relied on that there are no others.
    """

    status: str | None
    train_total: int
    pair_ids: list[str]
    train_count: int
    already_named: int
    named_total: int
    unknown: dict[str, tuple[list[str], int]]
    lines: list[Line]
    trainings: list[Line]


@lru_cache
def _resolve_statement(kinds: tuple[str, ...], listed: bool) -> TextClause:
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
    return text(
        f"""
        WITH hits AS MATERIALIZED ({hits})
        SELECT (SELECT status FROM datasets WHERE dataset_id = :dataset_id) AS status,
            (SELECT split_counts FROM datasets WHERE dataset_id = :dataset_id) AS split_counts,
            (SELECT array_agg(pair_id) FROM hits) AS pair_ids,
            (SELECT count(*) FROM hits WHERE split = 'train') AS train_count,
            (SELECT count(*) FROM hits WHERE {_NAMED_BEFORE.format(pair="hits.pair_id")}) AS already_named,
            (SELECT named_total FROM deletion_requests WHERE dataset_id = :dataset_id
             ORDER BY request_id DESC LIMIT 1) AS named_total,
            (SELECT jsonb_agg(jsonb_build_object(
                'lineage_id', lineage_id, 'model_id', model_id, 'family', family, 'task', task,
                'versions', versions,
                'open', EXISTS (SELECT 1 FROM hits WHERE split = 'train' AND NOT {forgotten})))
             FROM ({_LINES.format(versions=_LISTED if listed else "NULL", only=_ONLY if listed else "")})
             AS line) AS lines,
            (SELECT jsonb_agg(jsonb_build_object(
                'lineage_id', lineage_id, 'model_id', model_id, 'family', family, 'task', task,
                'job_id', job_id, 'open', true))
             FROM jobs JOIN models USING (model_id)
             WHERE dataset_id = :dataset_id AND kind = 'train' AND finished_time IS NULL
               AND jobs.status IN ('preparing', 'running', 'auditing', 'cancelling')) AS trainings
            {missing}
        """  # noqa: S608 - put together from the constants of this file
    )


_LINES = """
    SELECT lineage_id, model_id, family, task, {versions} AS versions
    FROM versions JOIN models USING (model_id)
    WHERE versions.dataset_id = :dataset_id AND versions.status = 'ready' {only}
    GROUP BY lineage_id, model_id, family, task
"""
_LISTED = "jsonb_agg(version_id)"
_ONLY = "AND version_id = ANY(:versions)"


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
) -> Resolved:
    """Find out what a request asks for.

    Args:
        session: the caller's transaction.
        dataset_id: the dataset.
        targets: kind (``pair_ids``, ``item_ids``, ``text_ids``) -> distinct ids; no empty lists.
        versions: the versions listed by the caller, or None for every lineage.
        methods: the methods that meet the request's scope.
    """
    statement = _resolve_statement(tuple(sorted(targets)), versions is not None)
    values: dict[str, Any] = {"dataset_id": dataset_id, "methods": list(methods), **targets}
    if versions is not None:
        values["versions"] = list(versions)
    row = session.execute(statement, values).mappings().one()
    pair_ids: list[str] = row["pair_ids"] or []
    missing = {kind: row.get(f"unknown_{kind}") or [] for kind in targets if kind != "pair_ids"}
    if "pair_ids" in targets:
        missing["pair_ids"] = list(set(targets["pair_ids"]).difference(pair_ids))
    return Resolved(
        status=row["status"],
        train_total=int((row["split_counts"] or {}).get("train", 0)),
        pair_ids=pair_ids,
        train_count=row["train_count"],
        already_named=row["already_named"],
        named_total=row["named_total"] or 0,
        unknown={kind: (sorted(ids)[:_SHOWN], len(ids)) for kind, ids in missing.items() if ids},
        lines=[_line(item) for item in row["lines"] or []],
        trainings=[] if versions is not None else [_line(item) for item in row["trainings"] or []],
    )


def _line(item: dict[str, Any]) -> Line:
    return Line(**{**item, "versions": tuple(item.get("versions") or ())})


_HOLD_ALONE = text("SELECT 1 FROM datasets WHERE dataset_id = :dataset_id FOR UPDATE")
# As the foreign keys of the request's rows do, so it costs the database no further lock.
_HOLD = text("SELECT 1 FROM datasets WHERE dataset_id = :dataset_id FOR KEY SHARE")


def hold_dataset(session: Session, dataset_id: str, *, alone: bool = False) -> None:
    """Keep what learns from a dataset, and what makes it forget, from missing each other.

    A request holds the dataset together with other requests before it looks for versions and
    trainings; the start and the end of a training and the end of an upload hold it ``alone`` before
    they look for requests. So one of two that meet waits for the other's commit, and then sees it.
    """
    session.execute(_HOLD_ALONE if alone else _HOLD, {"dataset_id": dataset_id})


_LEFT = text(
    f"""
    SELECT count(*) FROM (
        SELECT 1 FROM pairs WHERE dataset_id = :dataset_id AND split = 'train'
          AND NOT pair_id = ANY(:pair_ids) AND NOT {_NAMED_BEFORE.format(pair="pairs.pair_id")}
        LIMIT :most) AS kept
    """  # noqa: S608 - constants of this file
)


def count_left(session: Session, dataset_id: str, pair_ids: list[str], most: int) -> int:
    """Count training pairs that neither earlier requests nor ``pair_ids`` name, up to ``most``."""
    values = {"dataset_id": dataset_id, "pair_ids": pair_ids, "most": most}
    return session.execute(_LEFT, values).scalar() or 0


_COVERING = text(
    """
    SELECT request_id FROM deletion_requests AS other
    WHERE dataset_id = :dataset_id AND status = 'completed' AND met_by_request_id IS NULL
      AND pair_count >= :count
      AND (SELECT count(*) FROM deletion_request_pairs AS named
           WHERE named.request_id = other.request_id AND named.pair_id = ANY(:pair_ids)) = :count
    ORDER BY completed_time LIMIT 1
    """
)


def covering_request(session: Session, dataset_id: str, pair_ids: list[str]) -> str | None:
    """Return the first completed request that names every one of these pairs."""
    values = {"dataset_id": dataset_id, "pair_ids": pair_ids, "count": len(pair_ids)}
    found: str | None = session.execute(_COVERING, values).scalar()
    return found


_OVERLAPPING = text(
    """
    SELECT DISTINCT other.request_id FROM deletion_request_pairs AS mine
    JOIN deletion_request_pairs AS theirs USING (dataset_id, pair_id)
    JOIN deletion_requests AS other ON other.request_id = theirs.request_id
    WHERE mine.request_id = :request_id AND other.request_id < :request_id
      AND other.status NOT IN ('cancelled', 'denied')
    ORDER BY 1
    """
)


def earlier_requests(session: Session, request_id: str) -> list[str]:
    """Return the earlier requests that name some of the same pairs."""
    return list(session.execute(_OVERLAPPING, {"request_id": request_id}).scalars())


def pair_ids_of(session: Session, request_id: str) -> list[str]:
    """Return every pair of a request, sorted."""
    query = "SELECT pair_id FROM deletion_request_pairs WHERE request_id = :request_id"
    return sorted(session.execute(text(query), {"request_id": request_id}).scalars())
