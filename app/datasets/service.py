"""The rules of datasets: where they may lie, and that a manifest is put once and whole."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from psycopg import Connection
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from app.auth.service import Caller
from app.core.bodies import SpooledBody
from app.core.storage import Storage
from app.core.tables import new_id
from app.datasets import manifest, presence, rows, staging
from app.datasets.errors import (
    DatasetNotFound,
    ManifestBusy,
    ManifestFixed,
    ManifestInvalid,
    NameTaken,
)
from app.datasets.roots import checked_root
from app.datasets.schemas import DatasetIn
from app.datasets.tables import Dataset
from app.ledger import log
from app.ledger.records import DatasetRegistered

# From so many pairs on, the planner's old idea of the table would make requests slow.
_ANALYZE_FROM = 10_000


def create_dataset(session: Session, data_roots: list[str], given: DatasetIn) -> Dataset:
    """Register an empty dataset.

    Raises:
        RootRefused: its root lies outside of ``data_roots``.
        RootMissing: there is nothing at its root.
        NameTaken: another dataset has the name.
    """
    root = checked_root(given.root, data_roots)
    dataset = Dataset(
        dataset_id=new_id("ds"),
        name=given.name,
        modality=given.modality,
        root=root,
        classes=given.classes,
        status="empty",
        split_counts={},
    )
    session.add(dataset)
    try:
        session.flush()
    except IntegrityError:
        raise NameTaken(
            f"There is a dataset named {given.name!r} already. Use it, or choose another name.",
            pointers=[{"pointer": "#/name", "detail": "taken"}],
        ) from None
    return dataset


def put_manifest(
    session: Session,
    storage: Storage,
    dataset_id: str,
    body: SpooledBody,
    caller: Caller,
) -> Dataset:
    """Register the pairs of a dataset; the same manifest again changes nothing.

    Raises:
        DatasetNotFound: there is no such dataset.
        ManifestBusy: another manifest of the dataset is being read, or a request about it accepted.
        ManifestInvalid: a row is broken, contradicts another or names a file that is not there.
        ManifestFixed: the dataset has another manifest.
    """
    dataset = _lock(session, dataset_id)
    rules = rows.Rules(dataset.modality, dataset.classes)
    with TemporaryDirectory(dir=body.path.parent) as folder:
        prepared = manifest.prepare(body.path, body.content_type, rules, Path(folder))
        if dataset.status == "ready":
            return _unchanged(dataset, prepared)
        _register(session, dataset, prepared, Path(folder))
        dataset.manifest_path = f"manifests/{prepared.sha256}.jsonl"
        storage.put_file(prepared.canonical, dataset.manifest_path, move=True)
    dataset.status = "ready"
    dataset.manifest_sha256 = prepared.sha256
    dataset.pair_count = prepared.pair_count
    dataset.split_counts = prepared.split_counts
    dataset.items_per_pair = prepared.items_per_pair
    dataset.label_classes = prepared.label_classes
    log.append(session, _leaf(dataset, prepared, caller))
    return dataset


def _lock(session: Session, dataset_id: str) -> Dataset:
    statement = select(Dataset).where(Dataset.dataset_id == dataset_id)
    try:
        dataset = session.scalar(statement.with_for_update(nowait=True, key_share=True))
    except OperationalError as error:
        if getattr(error.orig, "sqlstate", None) != "55P03":  # lock_not_available
            raise
        raise ManifestBusy(
            f"Another call is changing {dataset_id}: a manifest is being read or a request accepted. "
            "Wait a moment, then try again.",
            headers={"Retry-After": "10"},
        ) from None
    if dataset is None:
        raise DatasetNotFound(dataset_id)
    return dataset


def _unchanged(dataset: Dataset, prepared: manifest.Prepared) -> Dataset:
    if dataset.manifest_sha256 != prepared.sha256:
        raise ManifestFixed(
            f"Expected the manifest that dataset {dataset.dataset_id} has, with SHA-256 "
            f"{dataset.manifest_sha256}; one with SHA-256 {prepared.sha256} came. A manifest never "
            "changes once it is there. Register a new dataset for other pairs "
            "(POST /v1/datasets), and to forget pairs file a deletion request."
        )
    return dataset


def _register(
    session: Session, dataset: Dataset, prepared: manifest.Prepared, folder: Path
) -> None:
    connection = _psycopg(session)
    staging.stage(connection, prepared.copy_rows)
    found = staging.conflicts(connection, manifest.MOST_REPORTED)
    if found:
        raise ManifestInvalid([conflict.report() for conflict in found], found[0].total)
    absent = presence.absent(connection, Path(dataset.root), folder, manifest.MOST_REPORTED)
    if absent:
        raise ManifestInvalid([row.report(Path(dataset.root)) for row in absent], absent[0].total)
    dataset.item_count = staging.count_items(connection)
    staging.register(connection, dataset.dataset_id)
    if prepared.pair_count >= _ANALYZE_FROM:
        session.execute(text("ANALYZE pairs"))


def _psycopg(session: Session) -> Connection[Any]:
    connection = session.connection().connection.driver_connection
    if not isinstance(connection, Connection):
        message = f"expected a psycopg connection; got {type(connection).__name__}"
        raise TypeError(message)
    return connection


def _leaf(dataset: Dataset, prepared: manifest.Prepared, caller: Caller) -> DatasetRegistered:
    return DatasetRegistered(
        dataset_id=dataset.dataset_id,
        modality=dataset.modality,
        manifest_sha256=prepared.sha256,
        pair_count=prepared.pair_count,
        split_counts=prepared.split_counts,
        token_id=caller.token_id,
    )
