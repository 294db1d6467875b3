"""How many deleted pairs versions still know: counted when it is asked, since requests may come later."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from app.deletions import methods
from app.registry.tables import Version

# Versions that the same jobs have led to know the same pairs, so that originals, which most are, are
# counted once a dataset. Of a request that one of these jobs met nothing is left; only the pairs of
# others are looked up one by one, in indexes (OFFSET 0): they may have been forgotten for somebody else.
_STILL_KNOWN = text(
    """
    WITH asked AS (
        SELECT version_id, dataset_id, lineage_id, number FROM versions
        WHERE version_id = ANY(CAST(:version_ids AS text[])) AND dataset_id IS NOT NULL),
    made AS (
        SELECT asked.version_id, asked.dataset_id, asked.lineage_id,
            ARRAY(SELECT version.job_id FROM versions AS version
                  WHERE version.lineage_id = asked.lineage_id AND version.number <= asked.number
                    AND EXISTS (SELECT 1 FROM deletion_request_jobs AS link
                                WHERE link.job_id = version.job_id)
                  ORDER BY version.number) AS job_ids
        FROM asked),
    ways AS (SELECT DISTINCT dataset_id, job_ids FROM made),
    counted AS MATERIALIZED (
        SELECT dataset_id, job_ids, (
            SELECT count(DISTINCT named.pair_id)
            FROM deletion_requests AS request JOIN deletion_request_pairs AS named USING (request_id)
            WHERE request.dataset_id = ways.dataset_id
              AND request.status NOT IN ('cancelled', 'denied')
              AND NOT EXISTS (
                SELECT 1 FROM deletion_request_jobs AS link
                WHERE link.request_id = request.request_id AND link.job_id = ANY(ways.job_ids)
                  AND link.relation IN ('forget', 'excluded'))
              AND EXISTS (
                SELECT 1 FROM pairs
                WHERE pairs.dataset_id = named.dataset_id AND pairs.pair_id = named.pair_id
                  AND pairs.split = 'train' OFFSET 0)
              AND (cardinality(ways.job_ids) = 0 OR NOT EXISTS (
                SELECT 1 FROM deletion_request_pairs AS other
                JOIN deletion_request_jobs AS link USING (request_id) JOIN jobs AS done USING (job_id)
                WHERE other.dataset_id = named.dataset_id AND other.pair_id = named.pair_id
                  AND link.job_id = ANY(ways.job_ids)
                  AND (link.relation = 'excluded' OR (link.relation = 'forget'
                       AND (:methods -> request.scope) ? (done.spec ->> 'method')))
                OFFSET 0))) AS pair_count
        FROM ways)
    SELECT version_id, pair_count,
        (SELECT newer.version_id FROM versions AS newer
         WHERE newer.lineage_id = made.lineage_id AND newer.status = 'ready'
         ORDER BY newer.number DESC LIMIT 1) AS newest,
        (SELECT min(job_id) FROM jobs
         WHERE jobs.lineage_id = made.lineage_id AND kind = 'unlearn' AND finished_time IS NULL) AS job_id
    FROM made JOIN counted USING (dataset_id, job_ids) WHERE pair_count > 0
    """
).bindparams(bindparam("methods", type_=JSONB))


@dataclass(frozen=True)
class StillKnown:
    """Deleted pairs that a version has not forgotten.

    A pair counts that is a training pair of the version's dataset and named by a request that is
    neither withdrawn nor denied, whichever versions that lists, unless this version or one before it
    in its lineage was trained without the pair or forgot it by a method that meets the request's scope.

    Attributes:
        pair_count: how many.
        newest: the newest version in use of the lineage.
        job_id: the first unlearning job of the lineage that has not ended.
    """

    pair_count: int
    newest: str | None = None
    job_id: str | None = None


def still_known(session: Session, versions: Sequence[Version]) -> dict[str, StillKnown]:
    """Return version -> what it still knows of what was deleted, in one statement for all of them."""
    values = {
        "version_ids": [version.version_id for version in versions],
        "methods": methods.by_scope(),
    }
    found = {
        version_id: StillKnown(*fields)
        for version_id, *fields in session.execute(_STILL_KNOWN, values)
    }
    return {one.version_id: found.get(one.version_id, StillKnown(0)) for one in versions}


def count_still_known(session: Session, version: Version) -> int:
    """Return how many deleted pairs a version still knows."""
    return still_known(session, [version])[version.version_id].pair_count
