"""``/v1/datasets``."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from app.auth.service import Caller, require
from app.core.bodies import DigestMismatch, SpooledBody, Truncated, spooled
from app.core.db import SessionDep
from app.core.errors import TooLarge, UnsupportedMediaType
from app.core.etags import NOT_MODIFIED, conditional
from app.core.idempotency import KeyInUse, KeyReused, OnceDep
from app.core.json_bodies import JsonRoute
from app.core.paging import Page, PagingDep
from app.core.problems import problems
from app.core.storage import StorageFull
from app.datasets import queries, service
from app.datasets.errors import (
    DatasetNotFound,
    ManifestBusy,
    ManifestFixed,
    ManifestInvalid,
    NameTaken,
    RootMissing,
    RootRefused,
    UnknownManifestFormat,
)
from app.datasets.readers import MEDIA_TYPES
from app.datasets.schemas import DatasetIn, DatasetOut
from app.datasets.tables import Dataset

router = APIRouter(prefix="/datasets", tags=["datasets"], route_class=JsonRoute)
Reader = Annotated[Caller, Depends(require("models:read"))]
Writer = Annotated[Caller, Depends(require("models:write"))]
ManifestBody = Annotated[
    SpooledBody, Depends(spooled(lambda settings: settings.max_manifest_bytes), scope="request")
]
_ROW = '{"id": "p1", "image": "a.png", "text": "a red cup", "split": "train"}\n'
_MANIFEST = {
    "requestBody": {
        "required": True,
        "description": "One row a pair: id, image (a reference or two) or graph, item_id?, text, "
        "text_id?, label?, split (train, val or test).",
        "content": {
            media_type: {"schema": {"type": "string", "format": "binary"}, "example": _ROW}
            for media_type in MEDIA_TYPES
        },
    }
}


@router.post(
    "",
    status_code=201,
    response_model=DatasetOut,
    responses=problems(NameTaken, KeyInUse, RootRefused, RootMissing, KeyReused),
)
def create_dataset(
    given: DatasetIn, _: Writer, session: SessionDep, once: OnceDep, request: Request
) -> Response:
    """Register a dataset; put its manifest next. Scope: models:write."""
    roots: list[str] = request.app.state.settings.data_roots
    dataset = service.create_dataset(session, roots, given)
    session.refresh(dataset)
    return once.answer(
        201, DatasetOut.of(dataset), {"Location": f"/v1/datasets/{dataset.dataset_id}"}
    )


@router.get("")
def list_datasets(_: Reader, session: SessionDep, paging: PagingDep) -> Page[DatasetOut]:
    """List datasets, newest first. Scope: models:read."""
    return paging.page(session, queries.all_datasets(), Dataset.dataset_id, DatasetOut.of)


@router.get(
    "/{dataset_id}",
    response_model=DatasetOut,
    responses=NOT_MODIFIED | problems(DatasetNotFound),
)
def read_dataset(dataset_id: str, _: Reader, session: SessionDep, request: Request) -> Response:
    """Read a dataset. Scope: models:read."""
    return conditional(request, DatasetOut.of(queries.get_dataset(session, dataset_id)))


@router.put(
    "/{dataset_id}/pairs",
    responses=problems(
        DatasetNotFound,
        ManifestBusy,
        ManifestFixed,
        TooLarge,
        UnknownManifestFormat,
        UnsupportedMediaType,
        ManifestInvalid,
        Truncated,
        DigestMismatch,
        StorageFull,
    ),
    openapi_extra=_MANIFEST,
)
def put_pairs(
    dataset_id: str, caller: Writer, session: SessionDep, body: ManifestBody, request: Request
) -> DatasetOut:
    """Put the pairs of a dataset, all of them at once; any broken row refuses the whole.

    So does a reference to a file that is not there, where the service sees the dataset's root; members
    of archives are looked up by the first run alone.
    The same manifest again changes nothing; another one is refused. Scope: models:write.
    """
    storage = request.app.state.storage
    return DatasetOut.of(service.put_manifest(session, storage, dataset_id, body, caller))
