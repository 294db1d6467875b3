"""``/v1/models``, their versions and lineages, and ``/v1/catalogue``."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from app.auth.service import Caller, require
from app.core.db import SessionDep
from app.core.etags import NOT_MODIFIED, conditional
from app.core.idempotency import KeyInUse, KeyReused, OnceDep
from app.core.json_bodies import JsonRoute
from app.core.paging import Page, PagingDep
from app.core.problems import problems
from app.datasets.errors import DatasetNotFound, DatasetNotReady, NameTaken
from app.datasets.queries import get_ready_dataset
from app.jobs.schemas import JobView
from app.jobs.service import enqueue_training
from app.jobs.views import view_of
from app.registry import queries, retirement, service
from app.registry.catalogue import Catalogue, catalogue
from app.registry.errors import (
    DatasetUnfit,
    ModelNotFound,
    NotEvaluable,
    ParametersInvalid,
    TooFewTrainingPairs,
    UnknownComponent,
    VersionBusy,
    VersionNotFound,
    VersionNotReady,
    WrongModality,
)
from app.registry.fitness import check_fit, check_patience
from app.registry.schemas import (
    LineageOut,
    LineagesOut,
    ModelIn,
    ModelOut,
    TrainingIn,
    UploadIn,
    VersionIn,
    VersionOut,
    version_url,
)
from app.registry.tables import Model, Version
from app.registry.views import version_out, versions_out

router = APIRouter(tags=["models"], route_class=JsonRoute)
Reader = Annotated[Caller, Depends(require("models:read"))]
Writer = Annotated[Caller, Depends(require("models:write"))]
_RETRY = {"Retry-After": "2"}


@router.get("/catalogue", response_model=Catalogue, responses=NOT_MODIFIED)
def read_catalogue(_: Reader, request: Request) -> Response:
    """Read what the engine can do, with the schema of every parameter. Scope: models:read."""
    return conditional(request, catalogue())


@router.post(
    "/models",
    status_code=201,
    response_model=ModelOut,
    responses=problems(NameTaken, KeyInUse, UnknownComponent, KeyReused),
)
def create_model(given: ModelIn, _: Writer, session: SessionDep, once: OnceDep) -> Response:
    """Register a model. Scope: models:write."""
    model = service.create_model(session, given)
    return once.answer(201, ModelOut.of(model), {"Location": f"/v1/models/{model.model_id}"})


@router.get("/models")
def list_models(_: Reader, session: SessionDep, paging: PagingDep) -> Page[ModelOut]:
    """List models, newest first. Scope: models:read."""
    return paging.page(session, queries.all_models(), Model.model_id, ModelOut.of)


@router.get(
    "/models/{model_id}",
    response_model=ModelOut,
    responses=NOT_MODIFIED | problems(ModelNotFound),
)
def read_model(model_id: str, _: Reader, session: SessionDep, request: Request) -> Response:
    """Read a model. Scope: models:read."""
    return conditional(request, ModelOut.of(queries.get_model(session, model_id)))


@router.post(
    "/models/{model_id}/versions",
    status_code=202,
    response_model=JobView,
    responses={
        **problems(
            ModelNotFound,
            DatasetNotFound,
            DatasetNotReady,
            KeyInUse,
            ParametersInvalid,
            NotEvaluable,
            DatasetUnfit,
            TooFewTrainingPairs,
            WrongModality,
            KeyReused,
        ),
        201: {"model": VersionOut, "description": "An upload began: put its files next."},
    },
)
def create_version(
    model_id: str,
    given: VersionIn,
    _: Writer,
    session: SessionDep,
    once: OnceDep,
    request: Request,
) -> Response:
    """Have a version trained by a job (202 and the job), or begin an upload (201 and the version).

    Scope: models:write.
    """
    model = queries.get_model(session, model_id)
    if isinstance(given, UploadIn):
        return _begin_upload(session, once, model, given)
    return _train(session, once, model, given, request)


@router.get("/models/{model_id}/versions", responses=problems(ModelNotFound))
def list_versions(
    model_id: str, _: Reader, session: SessionDep, paging: PagingDep
) -> Page[VersionOut]:
    """List a model's versions, newest first. Scope: models:read."""
    queries.get_model(session, model_id)
    statement = queries.versions_of(model_id)
    page = paging.page(session, statement, Version.version_id, lambda version: version)
    return Page(items=versions_out(session, page.items), next_cursor=page.next_cursor)


@router.get(
    "/models/{model_id}/versions/{version_id}",
    response_model=VersionOut,
    responses=NOT_MODIFIED | problems(VersionNotFound),
)
def read_version(
    model_id: str, version_id: str, _: Reader, session: SessionDep, request: Request
) -> Response:
    """Read a version. Scope: models:read."""
    version = queries.get_version(session, version_id, model_id)
    return conditional(request, version_out(session, version))


@router.get("/models/{model_id}/lineage", responses=problems(ModelNotFound))
def read_lineage(model_id: str, _: Reader, session: SessionDep) -> LineagesOut:
    """Read which version was unlearned from which. Scope: models:read."""
    found = service.lineages(session, model_id)
    seen = versions_out(session, [version for versions in found.values() for version in versions])
    shown = {view.version_id: view for view in seen}
    return LineagesOut(
        model_id=model_id,
        lineages=[
            LineageOut(
                lineage_id=lineage_id,
                dataset_id=versions[0].dataset_id,
                tip_version_id=_in_use(versions[-1]),
                versions=[shown[version.version_id] for version in versions],
            )
            for lineage_id, versions in found.items()
        ],
    )


@router.post(
    "/models/{model_id}/versions/{version_id}/retire",
    response_model=VersionOut,
    responses=problems(VersionNotFound, VersionBusy, VersionNotReady, KeyInUse, KeyReused),
)
def retire_version(
    model_id: str,
    version_id: str,
    caller: Writer,
    session: SessionDep,
    once: OnceDep,
    request: Request,
) -> Response:
    """Take a version out of use for good, with those that it was unlearned from. Scope: models:write.

    They can still be read, with audits and certificates; their files are not given out any more,
    and no later deletion request reaches them. A lineage whose newest version is retired is over:
    requests wait for it no longer, and their reports and certificates say that it was left as it
    is. The ledger records each version, and a second time changes nothing.
    """
    signer = request.app.state.signer
    version = retirement.retire(session, signer, model_id, version_id, caller.token_id)
    return once.answer(200, version_out(session, version))


def _in_use(version: Version) -> str | None:
    return version.version_id if version.status == "ready" else None


def _train(
    session: SessionDep, once: OnceDep, model: Model, given: TrainingIn, request: Request
) -> Response:
    spec = service.training_spec(model, given, request.app.state.settings.pretrained)
    dataset = get_ready_dataset(session, given.dataset_id)
    service.check_dataset(model, dataset)
    service.check_left(session, dataset)
    check_fit(model, dataset, given.config)
    check_patience(dataset, given.training)
    queue = request.app.state.queue
    job = enqueue_training(session, queue, model=model, dataset=dataset, spec=spec)
    headers = {"Location": f"/v1/jobs/{job.job_id}", **_RETRY}
    return once.answer(202, view_of(session, job), headers)


def _begin_upload(session: SessionDep, once: OnceDep, model: Model, given: UploadIn) -> Response:
    dataset = get_ready_dataset(session, given.dataset_id) if given.dataset_id is not None else None
    if dataset is not None:
        service.check_dataset(model, dataset)
    version = service.start_upload(session, model, given)
    if dataset is not None:
        check_fit(model, dataset, given.recipe.config, "#/recipe/config")
    return once.answer(201, version_out(session, version), {"Location": version_url(version)})
