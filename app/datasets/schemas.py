"""Bodies of the dataset routes."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.core.json_bodies import Body
from app.datasets.tables import Dataset

# What a person may call a dataset, a model or a token: one line, no control characters.
Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$"),
]


class DatasetIn(Body):
    """A dataset to register; its pairs come with the manifest."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"name": "product-photos", "modality": "image", "root": "/data/photos"}]
        },
    )

    name: Name
    modality: Literal["image", "graph"]
    root: Annotated[str, StringConstraints(min_length=1, max_length=4096)] = Field(
        description="Folder, zip archive or .tar archive that the manifest's references are "
        "relative to, as the workers see it. It must lie below one of the service's data roots, and "
        "be there where the API sees that data root."
    )
    classes: int | None = Field(
        default=None,
        ge=2,
        le=1_000_000,
        description="Number of classes; with it every row needs a label below it.",
    )


class DatasetOut(BaseModel):
    """A registered dataset: ``empty`` until its manifest is put, then ``ready`` for good."""

    model_config = ConfigDict(from_attributes=True)

    dataset_id: str
    name: str
    modality: Literal["image", "graph"]
    root: str
    status: Literal["empty", "ready"]
    classes: int | None
    manifest_sha256: str | None = Field(description="SHA-256 of the manifest as it is kept.")
    pair_count: int
    split_counts: dict[str, int]
    items_per_pair: int | None = Field(default=None, description="Images or graphs of each pair.")
    item_count: int | None = Field(default=None, description="Distinct images or graphs.")
    label_classes: int | None = Field(
        default=None, description="One above the highest label in the manifest; 0 without labels."
    )
    created_time: datetime

    @classmethod
    def of(cls, dataset: Dataset) -> "DatasetOut":
        """Return ``dataset`` as the API shows it."""
        return cls.model_validate(dataset)
