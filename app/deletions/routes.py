"""``/v1/deletion-requests``."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy import select

from app.auth.service import Caller, require
from app.core.bodies import LongList
from app.core.db import SessionDep
from app.core.etags import NOT_MODIFIED, conditional
from app.core.idempotency import KeyInUse, KeyReused, OnceDep
from app.core.paging import Page, PagingDep
from app.core.problems import problems
from app.datasets.errors import DatasetNotFound
from app.deletions import service
from app.deletions.errors import (
    DatasetNotReady,
    MethodGone,
    MethodRefused,
    NothingLeft,
    NothingToRetry,
    NotLearned,
    RequestEnded,
    RequestNotFound,
    RequestOpen,
    UnknownTargets,
)
from app.deletions.schemas import NewRequest, RequestView, Status
from app.deletions.service import Services
from app.deletions.tables import DeletionRequest
from app.registry.errors import ParametersInvalid, UnknownComponent, VersionRetired

router = APIRouter(prefix="/deletion-requests", tags=["deletion requests"], route_class=LongList)
Reader = Annotated[Caller, Depends(require("deletions:read"))]
Writer = Annotated[Caller, Depends(require("deletions:write"))]
Admin = Annotated[Caller, Depends(require("admin"))]


def _poll(view: RequestView) -> dict[str, str]:
    """Return when to ask again; nothing of a request that has ended, or waits for a person."""
    return {"Retry-After": "5"} if view.status in ("pending", "in_progress") else {}


def _services(request: Request) -> Services:
    return Services(request.app.state.queue, request.app.state.signer)


@router.post(
    "",
    status_code=202,
    response_model=RequestView,
    responses=problems(
        DatasetNotFound,
        DatasetNotReady,
        UnknownTargets,
        NotLearned,
        VersionRetired,
        NothingLeft,
        MethodRefused,
        UnknownComponent,
        ParametersInvalid,
        KeyInUse,
        KeyReused,
    ),
)
def submit_request(
    new: NewRequest, caller: Writer, session: SessionDep, once: OnceDep, request: Request
) -> Response:
    """File a deletion request: workers unlearn its pairs on every version that learned them.

    Where nothing has to be unlearned it is completed at once. Scope: deletions:write.
    """
    view = service.submit(session, _services(request), caller.token_id, new)
    place = f"/v1/deletion-requests/{view.request_id}"
    return once.answer(202, view, {"Location": place, **_poll(view)})


@router.get("")
def list_requests(
    _: Reader,
    session: SessionDep,
    paging: PagingDep,
    status: Annotated[Status | None, Query(description="Only requests in this state.")] = None,
    dataset_id: Annotated[
        str | None, Query(max_length=40, description="Only requests about this dataset.")
    ] = None,
) -> Page[RequestView]:
    """List deletion requests, newest first. Scope: deletions:read."""
    query = select(DeletionRequest)
    if status is not None:
        query = query.where(DeletionRequest.status == status)
    if dataset_id is not None:
        query = query.where(DeletionRequest.dataset_id == dataset_id)
    page = paging.page(session, query, DeletionRequest.request_id, lambda request: request)
    jobs = service.jobs_of(session, [request.request_id for request in page.items])
    views = [service.view_of(request, jobs[request.request_id]) for request in page.items]
    return Page(items=views, next_cursor=page.next_cursor)


@router.get(
    "/{request_id}",
    response_model=RequestView,
    responses=NOT_MODIFIED | problems(RequestNotFound),
)
def read_request(request_id: str, _: Reader, session: SessionDep, request: Request) -> Response:
    """Read a deletion request: status, deadline, jobs. Scope: deletions:read."""
    view = service.read(session, request_id)
    return conditional(request, view, _poll(view))


@router.delete("/{request_id}", status_code=204, responses=problems(RequestNotFound, RequestEnded))
def withdraw_request(
    request_id: str, caller: Writer, session: SessionDep, request: Request
) -> None:
    """Withdraw a deletion request that is not completed. Scope: deletions:write."""
    service.withdraw(session, _services(request), caller.token_id, request_id)


@router.delete(
    "/{request_id}/salt", status_code=204, responses=problems(RequestNotFound, RequestOpen)
)
def delete_salt(request_id: str, caller: Admin, session: SessionDep) -> None:
    """Delete the salt under which leaves and certificate commit to the pairs. Scope: admin.

    From then on nobody can test whether the commitment of a request that has ended means a pair;
    the service still knows its pairs, so as never to retain them. It cannot be undone. The ledger
    records it, and a second time changes nothing.
    """
    service.delete_salt(session, caller.token_id, request_id)


@router.post(
    "/{request_id}/retry",
    status_code=202,
    response_model=RequestView,
    responses=problems(RequestNotFound, NothingToRetry, MethodGone, KeyInUse, KeyReused),
)
def retry_request(
    request_id: str, _: Writer, session: SessionDep, once: OnceDep, request: Request
) -> Response:
    """Try again what failed of a request that needs attention. Scope: deletions:write."""
    view = service.retry(session, _services(request), request_id)
    place = f"/v1/deletion-requests/{request_id}"
    return once.answer(202, view, {"Location": place, **_poll(view)})
