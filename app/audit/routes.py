"""Audits, reports and certificates over HTTP."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from app.audit import report, service
from app.audit.errors import NoCertificate, RequestUnknown, VersionUnknown
from app.audit.schemas import ReportOut, RequestAuditOut, VersionAuditOut
from app.core.db import SessionDep
from app.core.numbers import LARGEST, Within
from app.core.problems import problems
from app.ledger.errors import LogCorrupt, NoSuchSize, asked_by
from app.ledger.routes import Reader, SignerDep
from app.ledger.schemas import CertificateOut

router = APIRouter(prefix="/audit", tags=["audit"])

# The page has no script and loads nothing: a value that slipped through unescaped stays harmless.
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
    "Vary": "Accept",
}
_REPORT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The report.", "content": {"text/html": {"schema": {"type": "string"}}}}
}

Format = Annotated[
    Literal["json", "html"] | None,
    Query(alias="format", description="Without it, the Accept header decides; else JSON."),
]


@router.get("/versions/{version_id}", responses=problems(VersionUnknown))
def read_version_audits(session: SessionDep, version_id: str, _: Reader) -> VersionAuditOut:
    """Return everything that was measured on a version."""
    return service.version_audits(session, version_id)


@router.get("/requests/{request_id}", responses=problems(RequestUnknown))
def read_request_audits(session: SessionDep, request_id: str, _: Reader) -> RequestAuditOut:
    """Return what was measured, before and after, on every version that stands for a request."""
    return service.request_audits(session, request_id)


@router.get(
    "/requests/{request_id}/report",
    response_model=ReportOut,
    responses=_REPORT | problems(RequestUnknown, LogCorrupt),
)
def read_report(
    request: Request,
    session: SessionDep,
    signer: SignerDep,
    request_id: str,
    _: Reader,
    form: Format = None,
) -> Response:
    """Return the compliance report of a request as things stand, as JSON or as a printable page."""
    found = report.report_of(session, signer, request_id)
    if (form or _accepted(request)) == "html":
        return HTMLResponse(report.as_html(found), headers=_PAGE_HEADERS)
    return JSONResponse(found.model_dump(mode="json"), headers={"Vary": "Accept"})


def _accepted(request: Request) -> str:
    accept = request.headers.get("accept", "")
    html, json = accept.find("text/html"), accept.find("application/json")
    return "html" if html >= 0 and (json < 0 or html < json) else "json"


@router.get(
    "/requests/{request_id}/certificate",
    response_model=CertificateOut,
    responses=problems(RequestUnknown, NoCertificate, NoSuchSize, LogCorrupt),
)
def read_certificate(
    session: SessionDep,
    signer: SignerDep,
    request_id: str,
    _: Reader,
    since: Annotated[
        Annotated[int, Within(0, LARGEST)] | None,
        Query(description="Size of a tree head that you kept; adds consistency."),
    ] = None,
) -> Response:
    """Return the certificate of a completed request, for ``lethe verify``.

    With ``since``, its evidence is made anew against the log as it is now, and proves that nothing
    recorded up to that size was changed.
    """
    with asked_by("since"):
        bundle = service.certificate_of(session, signer, request_id, since)
    disposition = f'attachment; filename="{request_id}.certificate.json"'
    return JSONResponse(bundle, headers={"Content-Disposition": disposition})
