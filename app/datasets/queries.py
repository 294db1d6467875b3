"""Reading datasets and their pairs."""

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from app.datasets.errors import DatasetNotFound, DatasetNotReady
from app.datasets.tables import Dataset


def get_dataset(session: Session, dataset_id: str) -> Dataset:
    """Return the dataset; raises `DatasetNotFound`."""
    dataset = session.get(Dataset, dataset_id)
    if dataset is None:
        raise DatasetNotFound(dataset_id)
    return dataset


def get_ready_dataset(session: Session, dataset_id: str) -> Dataset:
    """Return a dataset that has its manifest; raises `DatasetNotFound` or `DatasetNotReady`."""
    dataset = get_dataset(session, dataset_id)
    if dataset.status != "ready":
        raise DatasetNotReady(
            f"Dataset {dataset_id} has no pairs yet. Put its manifest to "
            f"/v1/datasets/{dataset_id}/pairs first."
        )
    return dataset


def all_datasets() -> Select[Dataset]:
    """Return the statement that selects every dataset."""
    return select(Dataset)
