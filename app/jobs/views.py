"""What a caller sees of jobs."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.jobs.schemas import (
    AttemptView,
    ErrorView,
    EventsView,
    EventView,
    JobView,
    ProgressView,
)
from app.jobs.tables import Attempt, Job, JobEvent

_PLAIN = (
    "job_id",
    "kind",
    "status",
    "model_id",
    "dataset_id",
    "lineage_id",
    "input_version_id",
    "output_version_id",
    "spec",
    "max_attempts",
    "result",
    "retry_time",
    "created_time",
    "started_time",
    "finished_time",
)


def view_of(session: Session, job: Job) -> JobView:
    """Return a job with its attempts."""
    return views_of(session, [job])[0]


def views_of(session: Session, jobs: Sequence[Job]) -> list[JobView]:
    """Return jobs with their attempts, all of which are read at once."""
    attempts: dict[str, list[AttemptView]] = {job.job_id: [] for job in jobs}
    query = select(Attempt).where(Attempt.job_id.in_(attempts)).order_by(Attempt.number)
    for attempt in session.scalars(query):
        attempts[attempt.job_id].append(AttemptView.model_validate(attempt))
    return [_view(job, attempts[job.job_id]) for job in jobs]


def _view(job: Job, attempts: list[AttemptView]) -> JobView:
    return JobView(
        **{name: getattr(job, name) for name in _PLAIN},
        attempts=attempts,
        progress=ProgressView(**job.progress),
        error=ErrorView(**job.error) if job.error else None,
    )


def events_of(session: Session, job_id: str, after: int, limit: int) -> EventsView:
    """Return the events of a job that came after the event ``after``, oldest first."""
    query = (
        select(JobEvent)
        .where(JobEvent.job_id == job_id, JobEvent.event_id > after)
        .order_by(JobEvent.event_id)
        .limit(limit)
    )
    items = [EventView.model_validate(event) for event in session.scalars(query)]
    return EventsView(items=items, last_event_id=items[-1].event_id if items else after)
