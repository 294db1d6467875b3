"""Rows that deletion requests are about, as registry and worker leave them, and jobs run by hand."""

from dataclasses import dataclass

from sqlalchemy import insert, text

from app.core.db import Database
from app.core.tables import new_id
from app.datasets.tables import Dataset, DatasetPair
from app.deletions import duties
from app.deletions.queries import hold_dataset
from app.jobs import endings
from app.jobs.lease import Lease, hold
from app.jobs.queue import Queue
from app.jobs.start import start
from app.jobs.tables import Job
from app.ledger.tree_head import Signer
from app.registry.service import add_version
from app.registry.tables import Model

TRAIN = 20


@dataclass(frozen=True)
class Rows:
    """A dataset of training pairs ``train-0`` ..., three for validation, three for tests; and a model.

    Two pairs share an item, ``train-item-0`` ...; each pair has its own text, ``train-text-0`` ...
    """

    database: Database
    signer: Signer
    queue: Queue
    dataset_id: str
    model_id: str

    @classmethod
    def make(cls, database: Database, signer: Signer, queue: Queue, train: int = TRAIN) -> "Rows":
        """Add dataset, pairs and model."""
        counts = {"train": train, "val": 3, "test": 3}
        dataset_id, model_id = new_id("ds"), new_id("mdl")
        pairs = [
            {
                "dataset_id": dataset_id,
                "pair_id": f"{split}-{number}",
                "item_id": f"{split}-item-{number // 2}",
                "text_id": f"{split}-text-{number}",
                "split": split,
            }
            for split, count in counts.items()
            for number in range(count)
        ]
        with database.transaction() as session:
            session.add(_dataset(dataset_id, counts))
            session.add(Model(model_id=model_id, name=model_id, family="albef", task="retrieval"))
            session.flush()
            session.execute(insert(DatasetPair), pairs)
        return cls(database, signer, queue, dataset_id, model_id)

    def version(self, parent_id: str | None = None, lineage_id: str | None = None) -> str:
        """Add a ready version that learned from the dataset; returns its id."""
        with self.database.transaction() as session:
            version = add_version(
                session,
                model_id=self.model_id,
                parent_id=parent_id,
                lineage_id=lineage_id,
                dataset_id=self.dataset_id,
                source="unlearning" if parent_id else "training",
                checkpoint_sha256="0" * 64,
                weights_sha256="1" * 64,
                files={},
                recipe={},
                job_id=new_id("job"),
            )
            return version.version_id

    def training(self) -> str:
        """Add a queued training job; returns its id."""
        job = Job(
            job_id=new_id("job"),
            kind="train",
            status="queued",
            model_id=self.model_id,
            dataset_id=self.dataset_id,
            lineage_id=new_id("ver"),
            spec={},
        )
        with self.database.transaction() as session:
            session.add(job)
        return job.job_id

    def claim(self, job_id: str) -> Lease | None:
        """Claim a job as a worker would."""
        with self.database.transaction() as session:
            return start(session, self.signer, job_id, "test", seconds=60, max_attempts=3)

    def finish(self, job_id: str, lease: Lease | None = None) -> str:
        """Claim a job unless that is done, and let it succeed; returns the new version's id."""
        held = lease or self.claim(job_id)
        assert held is not None
        with self.database.transaction() as session:
            job = hold(session, held)
            version = add_version(
                session,
                model_id=self.model_id,
                parent_id=job.input_version_id,
                lineage_id=job.lineage_id,
                dataset_id=self.dataset_id,
                source="unlearning" if job.input_version_id else "training",
                checkpoint_sha256="2" * 64,
                weights_sha256="3" * 64,
                files={},
                recipe={},
                job_id=job_id,
            )
            if job.kind == "train":
                hold_dataset(session, self.dataset_id)
                duties.after_training(session, self.queue, job, version)
            endings.succeed(session, self.signer, job, version_id=version.version_id, result={})
            return version.version_id

    def fail(self, job_id: str) -> None:
        """Claim a job and let it fail."""
        held = self.claim(job_id)
        assert held is not None
        with self.database.transaction() as session:
            endings.fail(session, self.signer, hold(session, held), "data_error", "a.png is broken")

    def leaves(self, subject: str) -> list[str]:
        """Return the kinds of the ledger's leaves about a resource."""
        query = text("SELECT kind FROM ledger_leaves WHERE subject = :subject ORDER BY leaf_index")
        with self.database.transaction() as session:
            return list(session.execute(query, {"subject": subject}).scalars())


def _dataset(dataset_id: str, counts: dict[str, int]) -> Dataset:
    return Dataset(
        dataset_id=dataset_id,
        name=dataset_id,
        modality="image",
        root="/",
        status="ready",
        manifest_sha256="0" * 64,
        manifest_path="manifests/none.jsonl",
        pair_count=sum(counts.values()),
        split_counts=counts,
    )
