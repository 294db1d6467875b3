"""``/v1/models/{model_id}/versions/{version_id}/files``: upload, finalize, download."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response

from app.auth.service import Caller, require
from app.core.bodies import DigestMismatch, SpooledBody, Truncated, spooled
from app.core.db import SessionDep
from app.core.errors import TooLarge, UnsupportedMediaType
from app.core.etags import NOT_MODIFIED
from app.core.idempotency import KeyInUse, KeyReused, OnceDep
from app.core.json_bodies import JsonRoute
from app.core.problems import problems
from app.core.storage import ObjectMissing, StorageFull
from app.jobs.service import enqueue_evaluation
from app.ledger import log
from app.ledger.records import CheckpointDownloaded
from app.registry import checkpoints, downloads, queries, uploads
from app.registry.downloads import RangeNotSatisfiable
from app.registry.errors import (
    CheckpointInvalid,
    FileNotFound,
    FileRefused,
    VersionFixed,
    VersionNotFound,
    VersionRetired,
)
from app.registry.schemas import FileOut, FilesOut, FinalizeIn, VersionOut
from app.registry.tables import Version, VersionFile
from app.registry.views import version_out

router = APIRouter(
    prefix="/models/{model_id}/versions/{version_id}", tags=["files"], route_class=JsonRoute
)
Reader = Annotated[Caller, Depends(require("models:read"))]
Writer = Annotated[Caller, Depends(require("models:write"))]
Downloader = Annotated[Caller, Depends(require("checkpoints:download"))]
FileBody = Annotated[
    SpooledBody, Depends(spooled(lambda settings: settings.max_file_bytes), scope="request")
]
_BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_UPLOAD: dict[str, Any] = {"requestBody": {"required": True, "content": _BINARY}}
_DOWNLOAD: dict[int | str, dict[str, Any]] = {
    200: {"description": "The whole file.", "content": _BINARY},
    206: {"description": "The range that was asked for.", "content": _BINARY},
    **NOT_MODIFIED,
    **problems(VersionNotFound, VersionRetired, FileNotFound, RangeNotSatisfiable, ObjectMissing),
}


def _conditions(
    range_: Annotated[str | None, Header(alias="Range", examples=["bytes=0-1023"])] = None,
    if_range: Annotated[str | None, Header()] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> dict[str, str]:
    given = {"range": range_, "if-range": if_range, "if-none-match": if_none_match}
    return {name: value for name, value in given.items() if value is not None}


Conditions = Annotated[dict[str, str], Depends(_conditions)]


@router.get("/files", responses=problems(VersionNotFound))
def list_files(model_id: str, version_id: str, _: Reader, session: SessionDep) -> FilesOut:
    """List a version's files with their SHA-256. Scope: models:read."""
    version = queries.get_version(session, version_id, model_id)
    return FilesOut(
        version_id=version_id,
        checkpoint_sha256=version.checkpoint_sha256,
        files=[FileOut.of(file) for file in queries.files_of(session, version_id)],
    )


@router.put(
    "/files/{path:path}",
    status_code=201,
    responses=problems(
        VersionNotFound,
        VersionFixed,
        TooLarge,
        UnsupportedMediaType,
        FileRefused,
        Truncated,
        DigestMismatch,
        StorageFull,
    ),
    openapi_extra=_UPLOAD,
)
def put_file(
    model_id: str,
    version_id: str,
    path: str,
    _: Writer,
    session: SessionDep,
    body: FileBody,
    request: Request,
) -> FileOut:
    """Upload one file of a version, in place of an earlier one of that name. Scope: models:write.

    Send the raw bytes; `Repr-Digest: sha-256=:...:` has them checked on arrival.
    """
    version = queries.get_version(session, version_id, model_id)
    storage = request.app.state.storage
    return FileOut.of(uploads.put_file(session, storage, version, path, body))


@router.get("/files/{path:path}", response_class=Response, responses=_DOWNLOAD)
def download_file(
    model_id: str,
    version_id: str,
    path: str,
    caller: Downloader,
    session: SessionDep,
    conditions: Conditions,
    request: Request,
) -> Response:
    """Download a file, or the range of it that `Range` names. Scope: checkpoints:download.

    A download of the weights from their first byte is recorded in the ledger.
    """
    version, file = _find(session, model_id, version_id, path)
    plan = downloads.plan(file, conditions)
    answer = downloads.response(request.app.state.storage, file, plan, body=True)
    if plan.begins and path == checkpoints.WEIGHTS and version.checkpoint_sha256 is not None:
        log.append_quickly(session, _downloaded(version, version.checkpoint_sha256, caller))
    return answer


@router.head("/files/{path:path}", response_class=Response, responses=_DOWNLOAD)
def read_file_head(
    model_id: str,
    version_id: str,
    path: str,
    _: Downloader,
    session: SessionDep,
    conditions: Conditions,
    request: Request,
) -> Response:
    """Read what a download would say: size, digest, tag. Scope: checkpoints:download."""
    _version, file = _find(session, model_id, version_id, path)
    plan = downloads.plan(file, conditions)
    return downloads.response(request.app.state.storage, file, plan, body=False)


@router.post(
    "/finalize",
    response_model=VersionOut,
    responses=problems(
        VersionNotFound, VersionFixed, KeyInUse, CheckpointInvalid, KeyReused, StorageFull
    ),
)
def finalize(
    model_id: str,
    version_id: str,
    caller: Writer,
    session: SessionDep,
    once: OnceDep,
    request: Request,
    given: FinalizeIn | None = None,
) -> Response:
    """End an upload: the files are checked together, and the version becomes ready for good.

    Scope: models:write.
    """
    state = request.app.state
    version = queries.get_version(session, version_id, model_id)
    expected = given.checkpoint_sha256 if given is not None else None
    if uploads.finalize(session, state.storage, version, expected):
        if version.evaluate:
            enqueue_evaluation(session, state.queue, version=version)
        log.append(session, uploads.registered(session, version, caller.token_id))
    return once.answer(200, version_out(session, version))


def _find(
    session: SessionDep, model_id: str, version_id: str, path: str
) -> tuple[Version, VersionFile]:
    version = queries.get_version(session, version_id, model_id)
    if version.status == "retired":
        raise VersionRetired(
            f"Version {version_id} is retired: its files are not given out any more. "
            f"GET /v1/models/{model_id}/versions lists those in use."
        )
    return version, queries.get_file(session, version_id, path)


def _downloaded(version: Version, checkpoint_sha256: str, caller: Caller) -> CheckpointDownloaded:
    return CheckpointDownloaded(
        version_id=version.version_id,
        checkpoint_sha256=checkpoint_sha256,
        token_id=caller.token_id,
    )
