"""Whether a request leaves enough training pairs to retain, and what to do where it does not."""

from collections.abc import Sequence

from sqlalchemy import Row, text
from sqlalchemy.orm import Session

from app.datasets.tables import LEAST_TRAINING_PAIRS
from app.deletions import queries
from app.deletions.errors import NothingLeft
from app.deletions.queries import Line, Resolved
from app.deletions.schemas import NewRequest

_SHOWN = 20
_NEWEST = text(
    """
    SELECT DISTINCT ON (lineage_id) model_id, version_id FROM versions
    WHERE lineage_id = ANY(CAST(:lineages AS text[])) AND status = 'ready'
    ORDER BY lineage_id, number DESC
    """
)


def check(session: Session, new: NewRequest, found: Resolved, reached: Sequence[Line]) -> None:
    """Make sure that a request leaves enough to retain, with what earlier ones named.

    Args:
        session: a transaction that holds the dataset.
        new: the request.
        found: what it means.
        reached: lineages and running trainings that would have to forget some of its pairs.

    Raises:
        NothingLeft: with what can be done as things stand.
    """
    left = queries.count_left(session, new.dataset_id, found.pair_ids, LEAST_TRAINING_PAIRS)
    if left >= LEAST_TRAINING_PAIRS:
        return
    pending = queries.open_requests(session, new.dataset_id)
    named = f", of which {', '.join(pending[:_SHOWN])} are not completed," if pending else ""
    raise NothingLeft(
        f"At least {LEAST_TRAINING_PAIRS} training pairs of dataset {new.dataset_id} must be left to"
        f" retain; without these {len(found.pair_ids)} pairs and those of earlier requests{named} {left}"
        f" would be. {_way_out(session, new, reached)}",
        pointers=[{"pointer": "#/targets", "detail": f"leaves {left} training pairs"}],
        extra={"pending_requests": {"count": len(pending), "first": pending[:_SHOWN]}},
    )


def _way_out(session: Session, new: NewRequest, reached: Sequence[Line]) -> str:
    tips = _newest_versions(session, [line.lineage_id for line in reached if line.job_id is None])
    steps = [f"POST /v1/models/{tip.model_id}/versions/{tip.version_id}/retire" for tip in tips]
    running = [line.job_id for line in reached if line.job_id is not None]
    steps += [f"POST /v1/jobs/{job_id}/cancel" for job_id in running]
    which = ["retire the versions that learned them"] if tips else []
    which += ["cancel the training that is learning them now"] if running else []
    rest = len(steps) - _SHOWN
    listed = ", ".join(steps[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
    then = (
        "Once no job runs on them any more, file this request again: it is completed at once."
        if new.versions is None
        else "Nothing is left to ask of them then."
    )
    whole = f"{' and '.join(which)} ({listed}). {then}"
    few = queries.count_left(session, new.dataset_id, [], LEAST_TRAINING_PAIRS)
    if few < LEAST_TRAINING_PAIRS:  # earlier requests alone leave too little
        return f"Naming fewer does not help: {whole}"
    return f"Name fewer, or {whole}"


def _newest_versions(session: Session, lineages: Sequence[str]) -> Sequence[Row[str, str]]:
    """Return ``model_id`` and ``version_id`` of the newest version in use of each lineage."""
    return session.execute(_NEWEST, {"lineages": list(lineages)}).all()
