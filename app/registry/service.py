"""The rules of models and versions: numbers without gaps, weights that never change."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.core.tables import new_id
from app.datasets.errors import NameTaken
from app.datasets.tables import LEAST_TRAINING_PAIRS, SPLITS, Dataset
from app.registry import pretrained, queries
from app.registry.catalogue import catalogue
from app.registry.errors import (
    ModelNotFound,
    NotEvaluable,
    TooFewTrainingPairs,
    WrongModality,
)
from app.registry.schemas import ModelIn, RecipeIn, TrainingIn, UploadIn
from app.registry.tables import Model, Version, VersionFile


def create_model(session: Session, given: ModelIn) -> Model:
    """Register a model.

    Raises:
        UnknownComponent: the catalogue does not have its family and task together.
        NameTaken: another model has the name.
    """
    catalogue().check_model(given.family, given.task)
    model = Model(model_id=new_id("mdl"), name=given.name, family=given.family, task=given.task)
    session.add(model)
    try:
        session.flush()
    except IntegrityError:
        raise NameTaken(
            f"There is a model named {given.name!r} already. Use it, or choose another name.",
            pointers=[{"pointer": "#/name", "detail": "taken"}],
        ) from None
    return model


def training_spec(model: Model, given: TrainingIn, pretrained_root: Path) -> dict[str, Any]:
    """Return what a training job has to run, which may start from a folder in ``pretrained_root``.

    Raises:
        ParametersInvalid: config or recipe do not suit the model.
    """
    check_recipe(model, given, installed=pretrained.folders(pretrained_root))
    return {"config": given.config, "training": given.training, "seed": given.seed}


def check_recipe(
    model: Model,
    recipe: TrainingIn | RecipeIn,
    pointer: str = "#",
    installed: Sequence[str] = (),
) -> None:
    """Raise `ParametersInvalid` unless config and recipe, at ``pointer``, suit the model."""
    catalogue().check_config(model.family, recipe.config, f"{pointer}/config", installed)
    catalogue().check_training(model.task, recipe.training, f"{pointer}/training")


def check_dataset(model: Model, dataset: Dataset) -> None:
    """Make sure that a version of ``model`` can learn, or can have learned, from ``dataset``.

    Raises:
        WrongModality: the model's family does not read what the dataset holds.
        TooFewTrainingPairs: its manifest has fewer than `LEAST_TRAINING_PAIRS`.
    """
    expected = catalogue().family(model.family).modality
    if dataset.modality != expected:
        raise WrongModality(
            f"The family {model.family} reads {expected} data; dataset {dataset.dataset_id} holds "
            f"{dataset.modality} data. Choose a dataset or a family that fits.",
            pointers=[{"pointer": "#/dataset_id", "detail": f"holds {dataset.modality} data"}],
        )
    if dataset.split_counts.get("train", 0) < LEAST_TRAINING_PAIRS:
        splits = ", ".join(f"{name} {dataset.split_counts.get(name, 0)}" for name in SPLITS)
        raise TooFewTrainingPairs(
            f"Expected at least {LEAST_TRAINING_PAIRS} pairs with the split 'train'; the manifest "
            f"of dataset {dataset.dataset_id} has {splits}. Register a dataset whose manifest has "
            "them.",
            pointers=[{"pointer": "#/dataset_id", "detail": f"its splits: {splits}"}],
        )


def check_left(session: Session, dataset: Dataset) -> None:
    """Make sure that deletion requests left enough of ``dataset`` for a training, or raise `TooFewTrainingPairs`."""
    deleted = queries.count_deleted(session, dataset.dataset_id)
    left = dataset.split_counts.get("train", 0) - deleted
    if left < LEAST_TRAINING_PAIRS:
        raise TooFewTrainingPairs(
            f"Expected at least {LEAST_TRAINING_PAIRS} training pairs; deletion requests named "
            f"{deleted} of dataset {dataset.dataset_id} and {left} are left. Register a dataset "
            "with more.",
            pointers=[{"pointer": "#/dataset_id", "detail": f"{left} training pairs left"}],
        )


def start_upload(session: Session, model: Model, given: UploadIn) -> Version:
    """Add a version that waits for its files.

    Raises:
        ParametersInvalid: its recipe does not suit the model.
        NotEvaluable: an audit is asked for without a dataset.
    """
    check_recipe(model, given.recipe, "#/recipe")
    if given.evaluate and given.dataset_id is None and "evaluate" in given.model_fields_set:
        raise NotEvaluable(
            "An audit needs the dataset that the version learned from. Name it as dataset_id, or "
            "set evaluate to false.",
            pointers=[{"pointer": "#/dataset_id", "detail": "expected with evaluate"}],
        )
    version = _new_version(session, model.model_id, new_id("ver"), "upload", "uploading")
    version.dataset_id = given.dataset_id
    version.recipe = given.recipe.model_dump()
    version.evaluate = given.evaluate and given.dataset_id is not None
    session.flush()
    return version


def add_version(  # noqa: PLR0913 - the parts of a version, all by name
    session: Session,
    *,
    model_id: str,
    parent_id: str | None,
    lineage_id: str | None,
    dataset_id: str,
    source: str,
    checkpoint_sha256: str,
    weights_sha256: str,
    files: Mapping[str, tuple[str, int]],
    recipe: Mapping[str, Any],
    job_id: str,
) -> Version:
    """Add a ready version that a job made; its files must lie in the storage already.

    Holds the model's row until the transaction ends, so that numbers have no gaps.

    Args:
        session: the recording transaction.
        model_id: its model.
        parent_id: the version that it was unlearned from; None for a trained one.
        lineage_id: its lineage; of a trained version also its own id (None makes one up).
        dataset_id: what it learned from.
        source: ``training`` or ``unlearning``.
        checkpoint_sha256: address of its files in the storage.
        weights_sha256: SHA-256 of ``model.safetensors``.
        files: SHA-256 and size in bytes by path, SHA256SUMS too.
        recipe: what retraining it needs.
        job_id: the job.

    Raises:
        ModelNotFound: there is no such model.
    """
    version_id = lineage_id if parent_id is None and lineage_id else new_id("ver")
    version = _new_version(session, model_id, version_id, source, "ready")
    version.parent_id = parent_id
    version.lineage_id = lineage_id or version_id
    version.dataset_id = dataset_id
    version.checkpoint_sha256 = checkpoint_sha256
    version.weights_sha256 = weights_sha256
    version.recipe = dict(recipe)
    version.job_id = job_id
    version.ready_time = session.scalar(select(func.now()))
    session.flush()
    session.add_all(
        VersionFile(
            version_id=version_id,
            path=path,
            sha256=sha256,
            size=size,
            location=checkpoint_key(checkpoint_sha256, path),
        )
        for path, (sha256, size) in sorted(files.items())
    )
    session.flush()
    return version


def checkpoint_key(checkpoint_sha256: str, path: str = "") -> str:
    """Return where the storage keeps a checkpoint, or one of its files."""
    return f"checkpoints/{checkpoint_sha256}" + (f"/{path}" if path else "")


def lineages(session: Session, model_id: str) -> dict[str, Sequence[Version]]:
    """Return the versions of a model that are or were ready by lineage, oldest first."""
    queries.get_model(session, model_id)
    statement = queries.versions_of(model_id).where(Version.status != "uploading")
    found: dict[str, list[Version]] = {}
    for version in session.scalars(statement.order_by(Version.number)):
        found.setdefault(version.lineage_id, []).append(version)
    return dict(found)


def _new_version(
    session: Session, model_id: str, version_id: str, source: str, status: str
) -> Version:
    locked = select(Model.model_id).where(Model.model_id == model_id)
    if session.scalar(locked.with_for_update(key_share=True)) is None:
        raise ModelNotFound(model_id)
    last = session.scalar(select(func.max(Version.number)).where(Version.model_id == model_id))
    version = Version(
        version_id=version_id,
        model_id=model_id,
        number=(last or 0) + 1,
        lineage_id=version_id,
        source=source,
        status=status,
        recipe={},
        evaluate=False,
    )
    session.add(version)
    return version
