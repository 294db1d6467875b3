"""A dataset, a model, a deletion request and what its job measured, as the service records them."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from fastapi import FastAPI

from app.audit.tables import Audit
from app.core.db import Database
from app.datasets.tables import Dataset
from app.deletions.tables import DeletionRequest, RequestJob
from app.jobs.tables import Job
from app.ledger import certificate, log
from app.ledger.certificate import CertificateData, CertifiedVersion, key_metrics
from app.ledger.records import RequestReceived
from app.ledger.tree_head import Signer
from app.registry.tables import Model, Version

RECEIVED = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
SECRET_PAIR = "ada-lovelace-holiday.png#3"


def metric(
    name: str,
    moment: str,
    subset: str,
    value: float | None,
    interval: tuple[float, float] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return a metric as the engine gives it."""
    return {
        "name": name,
        "moment": moment,
        "subset": subset,
        "value": value,
        "interval": interval,
        "n": 160,
        "direction": "lower",
        "unit": "",
        "unavailable": None,
        "details": {},
        **more,
    }


METRICS = [
    metric("d_test", "before", "test", 91.2, (89.0, 93.4), n=500, unit="points"),
    metric("d_test", "after", "test", 90.8, (88.5, 93.0), n=500, unit="points"),
    metric("d_f", "before", "forget", 50.3, (46.1, 54.4), unit="points"),
    metric("d_f", "after", "forget", 11.25, (8.5, 14.75), unit="points"),
    metric("unseen_auc", "before", "forget", 0.81, (0.76, 0.86)),
    metric("unseen_auc", "after", "forget", 0.49, (0.43, 0.55)),
    metric("mi_ratio", "after", "forget", None, n=160, unavailable="needs at least 20 pairs"),
]


@dataclass
class Case:
    """Writes the rows of one request, step by step."""

    received: ClassVar[datetime] = RECEIVED
    secret_pair: ClassVar[str] = SECRET_PAIR

    database: Database
    signer: Signer
    metrics: list[dict[str, Any]] = field(default_factory=lambda: list(METRICS))

    def file(self, request_id: str = "req_1", **changes: Any) -> None:
        """File a request; the first one brings dataset, model and original with it."""
        with self.database.transaction() as session:
            if session.get(Dataset, "ds_1") is None:
                session.add(dataset())
                session.add(model())
                session.flush()
                session.add(version("ver_1", 1, None, "training"))
                session.flush()
            session.add(request(request_id, **changes))
            log.append(session, received(request_id))

    def run(self, request_id: str = "req_1", job_id: str = "job_1", number: int = 2) -> None:
        """Run a job that unlearns, record its version and what was measured on it."""
        new, old = f"ver_{number}", f"ver_{number - 1}"
        with self.database.transaction() as session:
            session.add(version(new, number, old, "unlearning", job_id))
            session.flush()
            session.add(job(job_id, old, new))
            session.flush()
            session.add(RequestJob(request_id=request_id, job_id=job_id, relation="forget"))
            session.add(
                Audit(
                    audit_id=f"aud_{number}",
                    version_id=new,
                    job_id=job_id,
                    objective="decouple",
                    metrics=self.metrics,
                    cost={"seconds": 83.4, "steps": 120},
                    environment={"torch": "2.13.0"},
                )
            )

    def complete(self, request_id: str = "req_1", *versions: str) -> dict[str, Any]:
        """Complete a request with a certificate about ``versions``."""
        with self.database.transaction() as session:
            row = session.get_one(DeletionRequest, request_id)
            row.status = "completed"
            row.completed_time = RECEIVED + timedelta(hours=2)
            row.certificate = certificate.issue(session, self.signer, self.stated(row, versions))
            return row.certificate

    def stated(self, row: DeletionRequest, versions: tuple[str, ...]) -> CertificateData:
        """Return what the certificate of a request states."""
        return CertificateData(
            request_id=row.request_id,
            dataset_id=row.dataset_id,
            received_time=row.submitted_time,
            completed_time=row.completed_time,
            deadline=row.deadline,
            scope=row.scope,
            objective=row.objective,
            method=row.method,
            update=row.update,
            guarantee="approximate" if versions else "not_needed",
            limitations=["Image and text on their own are kept."] if versions else [],
            pair_count=row.pair_count,
            pairs_commitment="ef" * 32,
            versions=[
                CertifiedVersion(
                    version_id=name,
                    input_version_id="ver_1",
                    checkpoint_sha256="ab" * 32,
                    weights_sha256="cd" * 32,
                    metrics=key_metrics(self.metrics, row.request_id),
                )
                for name in versions
            ],
        )


def dataset() -> Dataset:
    """Return the dataset; its name needs escaping on a page."""
    return Dataset(
        dataset_id="ds_1",
        name="Emoji <&> captions",
        modality="image",
        root="/data",
        status="ready",
        manifest_sha256="aa" * 32,
        pair_count=4000,
        split_counts={"train": 3200, "val": 400, "test": 400},
    )


def model() -> Model:
    """Return the model."""
    return Model(model_id="mod_1", name="Emoji search", family="albef", task="retrieval")


def version(
    version_id: str, number: int, parent: str | None, source: str, job_id: str | None = None
) -> Version:
    """Return a version of the model."""
    return Version(
        version_id=version_id,
        model_id="mod_1",
        number=number,
        lineage_id="ver_1",
        parent_id=parent,
        dataset_id="ds_1",
        source=source,
        status="ready",
        checkpoint_sha256="ab" * 32,
        weights_sha256="cd" * 32,
        recipe={},
        job_id=job_id,
    )


def job(job_id: str, old: str, new: str) -> Job:
    """Return a succeeded unlearning job."""
    return Job(
        job_id=job_id,
        kind="unlearn",
        status="succeeded",
        model_id="mod_1",
        dataset_id="ds_1",
        lineage_id="ver_1",
        input_version_id=old,
        output_version_id=new,
        spec={},
        progress={},
    )


def request(request_id: str, **changes: Any) -> DeletionRequest:
    """Return a deletion request; its reason names a person, which no report may repeat."""
    row: dict[str, Any] = {
        "request_id": request_id,
        "dataset_id": "ds_1",
        "status": "in_progress",
        "reason": "Asked for by Ada Lovelace",
        "scope": "association",
        "objective": "decouple",
        "method": "multidelete",
        "update": "all",
        "params": {},
        "pair_count": 160,
        "salt": bytes(32),
        "submitted_by": "tok_1",
        "submitted_time": RECEIVED,
        "deadline": RECEIVED + timedelta(days=31),
        **changes,
    }
    return DeletionRequest(**row)


def received(request_id: str) -> RequestReceived:
    """Return the leaf of the request."""
    return RequestReceived(
        request_id=request_id,
        dataset_id="ds_1",
        pair_count=160,
        pairs_commitment="ef" * 32,
        scope="association",
        objective="decouple",
        method="multidelete",
        update="all",
        deadline=RECEIVED + timedelta(days=31),
    )


@pytest.fixture
def case(app: FastAPI, database: Database) -> Case:
    """Give a writer of rows that signs with the service's own key."""
    return Case(database, app.state.signer)
