"""Reading models, versions, lineages and files."""

from collections.abc import Sequence

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session, aliased

from app.datasets.tables import DatasetPair
from app.deletions.tables import DeletionRequest, RequestPair
from app.registry.errors import FileNotFound, ModelNotFound, VersionNotFound
from app.registry.tables import Model, Version, VersionFile

# A request that was denied or withdrawn deletes nothing.
WITHOUT_EFFECT = ("denied", "cancelled")


def all_models() -> Select[Model]:
    """Return the statement that selects every model."""
    return select(Model)


def get_model(session: Session, model_id: str) -> Model:
    """Return the model; raises `ModelNotFound`."""
    model = session.get(Model, model_id)
    if model is None:
        raise ModelNotFound(model_id)
    return model


def versions_of(model_id: str) -> Select[Version]:
    """Return the statement that selects every version of a model."""
    return select(Version).where(Version.model_id == model_id)


def get_version(session: Session, version_id: str, model_id: str | None = None) -> Version:
    """Return the version, of ``model_id`` if that is given; raises `VersionNotFound`."""
    version = session.get(Version, version_id)
    if version is None or model_id not in (None, version.model_id):
        raise VersionNotFound(version_id)
    return version


def lineage(session: Session, lineage_id: str) -> Sequence[Version]:
    """Return the versions of a lineage, oldest first."""
    statement = select(Version).where(Version.lineage_id == lineage_id)
    return session.scalars(statement.order_by(Version.number)).all()


def tip(session: Session, lineage_id: str) -> Version | None:
    """Return the newest ready version of a lineage, where deletions go on, or None."""
    return session.scalar(_tips().where(Version.lineage_id == lineage_id))


def learned_versions(session: Session, dataset_id: str) -> Sequence[Version]:
    """Return the tip of every ready lineage that learned from the dataset."""
    return session.scalars(
        _tips().where(Version.dataset_id == dataset_id).order_by(Version.version_id)
    ).all()


def files_of(session: Session, version_id: str) -> Sequence[VersionFile]:
    """Return the files of a version, sorted by path (by code points, as SHA256SUMS is)."""
    found = session.scalars(select(VersionFile).where(VersionFile.version_id == version_id))
    return sorted(found, key=lambda file: file.path)


def get_file(session: Session, version_id: str, path: str) -> VersionFile:
    """Return one file of a version; raises `FileNotFound`."""
    file = session.get(VersionFile, (version_id, path))
    if file is None:
        raise FileNotFound(
            f"Version {version_id} has no file {path!r}. GET .../files lists what it has."
        )
    return file


def count_deleted(session: Session, dataset_id: str) -> int:
    """Return how many training pairs of a dataset are named by a request that is in effect."""
    named = (
        select(func.count(func.distinct(RequestPair.pair_id)))
        .join(DeletionRequest, DeletionRequest.request_id == RequestPair.request_id)
        .join(
            DatasetPair,
            (DatasetPair.dataset_id == RequestPair.dataset_id)
            & (DatasetPair.pair_id == RequestPair.pair_id),
        )
        .where(
            RequestPair.dataset_id == dataset_id,
            DatasetPair.split == "train",
            DeletionRequest.status.not_in(WITHOUT_EFFECT),
        )
    )
    return session.scalar(named) or 0


def _tips() -> Select[Version]:
    child = aliased(Version)
    followed = select(child.version_id).where(child.parent_id == Version.version_id).exists()
    return select(Version).where(Version.status == "ready", ~followed)
