"""In which versions of a lineage the pairs of a request were forgotten."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.deletions import methods
from app.deletions.outcome import Standing
from app.deletions.tables import DeletionRequest

# Of each pair the first version that left it out or forgot it, by a method that meets the scope. A
# job whose pairs had all been forgotten before names no request in its result, and made no version.
_FIRST = text(
    """
    SELECT lineage_id, version_id, number, learned, count(*) AS pair_count FROM (
        SELECT DISTINCT ON (done.lineage_id, mine.pair_id) done.lineage_id, made.version_id, made.number,
            link.relation = 'forget' AS learned
        FROM deletion_request_pairs AS mine
        JOIN pairs ON pairs.dataset_id = mine.dataset_id AND pairs.pair_id = mine.pair_id
        JOIN deletion_request_pairs AS named
            ON named.dataset_id = mine.dataset_id AND named.pair_id = mine.pair_id
        JOIN deletion_request_jobs AS link ON link.request_id = named.request_id
        JOIN jobs AS done USING (job_id)
        JOIN versions AS made ON made.version_id = done.output_version_id
        WHERE mine.request_id = :request_id AND pairs.split = 'train'
          AND done.lineage_id = ANY(CAST(:lineages AS text[])) AND done.status = 'succeeded'
          AND (link.relation = 'excluded' OR (
               link.relation = 'forget' AND done.spec ->> 'method' = ANY(CAST(:methods AS text[]))
               AND coalesce((done.result -> 'request_ids') ? named.request_id, true)))
        ORDER BY done.lineage_id, mine.pair_id, made.number) AS firsts
    GROUP BY lineage_id, version_id, number, learned ORDER BY lineage_id, number
    """
)


@dataclass(frozen=True)
class Origin:
    """A version with which training pairs of a request were gone from its lineage for the first time.

    Attributes:
        pair_count: how many of the request's training pairs.
        learned: whether the versions before knew them; if not, the version was trained without them.
    """

    version_id: str
    number: int
    pair_count: int
    learned: bool


def origins(
    session: Session, request: DeletionRequest, versions: Sequence[Standing]
) -> Mapping[str, list[Origin]]:
    """Return version -> where the request's training pairs were forgotten on the way to it, oldest first.

    Args:
        session: a transaction.
        request: its own scope decides which methods count, besides the one that it asked for.
        versions: those that stand for it.
    """
    if not versions:
        return {}
    values = {
        "request_id": request.request_id,
        "lineages": sorted({one.version.lineage_id for one in versions}),
        "methods": sorted({request.method, *methods.meeting(request.scope)}),
    }
    by_line: dict[str, list[Origin]] = defaultdict(list)
    for lineage_id, *fields in session.execute(_FIRST, values):
        version_id, number, learned, pair_count = fields
        by_line[lineage_id].append(Origin(version_id, number, pair_count, learned))
    return {
        one.version.version_id: [
            origin
            for origin in by_line[one.version.lineage_id]
            if origin.number <= one.version.number
        ]
        for one in versions
    }
