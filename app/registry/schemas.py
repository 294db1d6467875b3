"""Bodies of the model, version and file routes."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.core.json_bodies import Body
from app.datasets.schemas import Name
from app.registry.tables import Model, Version, VersionFile

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
ResourceId = Annotated[str, StringConstraints(min_length=1, max_length=40)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=40)]
Values = dict[str, Any]
CONTAINS_DELETED = (
    "Deleted pairs that this version still knows, counted when it is read: training pairs of its"
    " dataset that a deletion request names which is neither withdrawn nor denied, whatever versions"
    " it lists and whether or not it is completed. A pair is left out that this version or one before"
    " it in its lineage was trained without, or forgot by a method that meets that request's scope."
)


class ModelIn(Body):
    """A model to register."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": "photo-search", "family": "albef", "task": "retrieval"}]
        },
    )

    name: Name
    family: Word = Field(description="An architecture of GET /v1/catalogue.")
    task: Word = Field(description="What it is trained for.")


class ModelOut(BaseModel):
    """A model: a name for a series of versions of one family and task."""

    model_config = ConfigDict(from_attributes=True, protected_namespaces=())

    model_id: str
    name: str
    family: str
    task: str
    created_time: datetime

    @classmethod
    def of(cls, model: Model) -> "ModelOut":
        """Return ``model`` as the API shows it."""
        return cls.model_validate(model)


class TrainingIn(Body):
    """A version to be trained by a job."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"source": "training", "dataset_id": "ds_01jd...", "config": {}, "training": {}}
            ]
        },
    )

    source: Literal["training"]
    dataset_id: ResourceId
    config: Values = Field(default={}, description="Configuration of the family.")
    training: Values = Field(default={}, description="Recipe of the task.")
    seed: int = Field(default=0, ge=0, lt=2**31)


class RecipeIn(Body):
    """What retraining the version needs."""

    config: Values = Field(default={}, description="Configuration of the family.")
    training: Values = Field(default={}, description="Recipe of the task.")
    seed: int = Field(default=0, ge=0, lt=2**31)


class UploadIn(Body):
    """A version whose files are put one by one, then finalized."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"source": "upload", "dataset_id": "ds_01jd..."}]},
    )

    source: Literal["upload"]
    dataset_id: ResourceId | None = Field(
        default=None,
        description="What it learned from; without it no deletion request reaches the version.",
    )
    recipe: RecipeIn = Field(
        default=RecipeIn(), description="How it was trained: config, training, seed."
    )
    evaluate: bool = Field(default=True, description="Audit it once it is ready.")


VersionIn = Annotated[TrainingIn | UploadIn, Field(discriminator="source")]


class FinalizeIn(Body):
    """Ends an upload."""

    checkpoint_sha256: Sha256 | None = Field(
        default=None,
        description="SHA-256 over the lines `<sha256>  <path>` of all files but SHA256SUMS, sorted "
        "by path; checked when given.",
    )


class VersionOut(BaseModel):
    """A version: one immutable set of weights."""

    model_config = ConfigDict(from_attributes=True, protected_namespaces=())

    version_id: str
    model_id: str
    number: int
    lineage_id: str
    parent_id: str | None
    dataset_id: str | None
    source: Literal["training", "upload", "unlearning"]
    status: Literal["uploading", "ready", "retired"] = Field(
        description="`retired`: out of use for good. It can be read, with its audits; its files are"
        " not given out, and no later deletion request reaches it."
    )
    checkpoint_sha256: str | None
    weights_sha256: str | None
    contains_deleted: int = Field(description=CONTAINS_DELETED)
    next_step: str | None = Field(
        default=None,
        description="What to do about the pairs of `contains_deleted`; null where there are none, and"
        " of a retired version.",
        examples=[None],
    )
    job_id: str | None
    created_time: datetime
    retired_time: datetime | None = None
    files_url: str


class LineageOut(BaseModel):
    """A trained or uploaded version and everything that was unlearned from it, oldest first."""

    lineage_id: str
    dataset_id: str | None
    tip_version_id: str | None = Field(
        description="The newest version, where deletions go on; null once it is retired."
    )
    versions: list[VersionOut]


class LineagesOut(BaseModel):
    """Every lineage of a model."""

    model_config = ConfigDict(protected_namespaces=())

    model_id: str
    lineages: list[LineageOut]


class FileOut(BaseModel):
    """One file of a version."""

    model_config = ConfigDict(from_attributes=True)

    path: str
    sha256: str
    size: int

    @classmethod
    def of(cls, file: VersionFile) -> "FileOut":
        """Return ``file`` as the API shows it."""
        return cls.model_validate(file)


class FilesOut(BaseModel):
    """The files of a version."""

    version_id: str
    checkpoint_sha256: str | None
    files: list[FileOut]


def version_url(version: Version) -> str:
    """Return the path of a version."""
    return f"/v1/models/{version.model_id}/versions/{version.version_id}"


def files_url(version: Version) -> str:
    """Return the path of a version's files."""
    return f"{version_url(version)}/files"
