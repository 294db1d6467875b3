"""``/v1/jobs``."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy import select

from app.auth.service import Caller, require
from app.core.db import SessionDep
from app.core.etags import NOT_MODIFIED, conditional
from app.core.idempotency import KeyInUse, KeyReused, OnceDep
from app.core.numbers import LARGEST, Within
from app.core.paging import Page, PagingDep
from app.core.problems import problems
from app.jobs import service
from app.jobs.errors import JobEnded, JobNotFound
from app.jobs.schemas import EventsView, JobView, Status
from app.jobs.tables import ENDED, Job
from app.jobs.views import events_of, view_of, views_of

router = APIRouter(prefix="/jobs", tags=["jobs"])
Reader = Annotated[Caller, Depends(require("models:read"))]
Writer = Annotated[Caller, Depends(require("models:write"))]
_POLL = {"Retry-After": "2"}


@router.get("")
def list_jobs(
    _: Reader,
    session: SessionDep,
    paging: PagingDep,
    status: Annotated[Status | None, Query(description="Only jobs in this state.")] = None,
) -> Page[JobView]:
    """List jobs, newest first. Scope: models:read."""
    query = select(Job) if status is None else select(Job).where(Job.status == status)
    page = paging.page(session, query, Job.job_id, lambda job: job)
    return Page(items=views_of(session, page.items), next_cursor=page.next_cursor)


@router.get("/{job_id}", response_model=JobView, responses=NOT_MODIFIED | problems(JobNotFound))
def read_job(job_id: str, _: Reader, session: SessionDep, request: Request) -> Response:
    """Read a job: status, progress with losses, attempts, outcome. Scope: models:read."""
    view = view_of(session, service.get_job(session, job_id))
    return conditional(request, view, {} if view.status in ENDED else _POLL)


@router.get("/{job_id}/events", responses=problems(JobNotFound))
def read_events(
    job_id: str,
    _: Reader,
    session: SessionDep,
    after: Annotated[int, Within(0, LARGEST), Query(description="Only events after this one.")] = 0,
    limit: Annotated[int, Within(1, 1000), Query(description="Events at most.")] = 200,
) -> EventsView:
    """Read a job's history: changes of status, and progress with losses. Scope: models:read."""
    service.get_job(session, job_id)
    return events_of(session, job_id, after, limit)


@router.post(
    "/{job_id}/cancel",
    status_code=202,
    response_model=JobView,
    responses=problems(JobNotFound, JobEnded, KeyInUse, KeyReused),
)
def cancel_job(
    job_id: str, _: Writer, session: SessionDep, once: OnceDep, request: Request
) -> Response:
    """Cancel a job; a running one stops within seconds. Its requests then need attention.

    Scope: models:write.
    """
    job = service.cancel(session, request.app.state.signer, job_id)
    session.refresh(job)
    return once.answer(202, view_of(session, job), {"Location": f"/v1/jobs/{job_id}", **_POLL})
