"""What the trainer needs, put where it can read it: the spec, the manifest and the input checkpoint."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app.core.storage import Storage
from app.datasets.tables import Dataset
from app.deletions import lineage, methods
from app.deletions.lineage import Pairs
from app.jobs.lease import Lease, hold
from app.jobs.tables import Job
from app.registry.service import checkpoint_key
from app.registry.tables import Model, Version
from worker import protocol
from worker.context import Context


@dataclass(frozen=True)
class Assignment:
    """A job as it was when it was claimed.

    Attributes:
        spec: the engine's RunSpec without places on disk.
        recipe: config, training recipe and seed of the version that comes out.
    """

    job_id: str
    kind: str
    model_id: str
    dataset_id: str
    lineage_id: str
    input_version_id: str | None
    input_sha256: str | None
    input_weights_sha256: str | None
    manifest_key: str
    manifest_sha256: str
    root: str
    spec: dict[str, Any]
    recipe: dict[str, Any]

    @property
    def nothing_to_do(self) -> bool:
        """Whether an unlearning job finds that its lineage forgot everything before."""
        return self.kind == "unlearn" and not self.spec["forget"]

    @property
    def fingerprint(self) -> str:
        """Names the run: attempts whose run is another one do not share state."""
        facts = [self.spec, self.manifest_sha256, self.input_sha256]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def read_assignment(session: Session, lease: Lease) -> Assignment:
    """Read what a claimed job has to do.

    Raises:
        LeaseLost, CancelRequested
    """
    job = hold(session, lease)
    dataset = session.get_one(Dataset, job.dataset_id)
    model = session.get_one(Model, job.model_id)
    version = session.get_one(Version, job.input_version_id) if job.input_version_id else None
    recipe = dict(version.recipe) if version else _recipe(job.spec)
    spec = {
        "action": job.kind,
        "family": model.family,
        "task": model.task,
        "config": recipe.get("config", {}),
        "training": recipe.get("training", {}),
        "seed": recipe.get("seed", 0),
        **_pairs(session, job),
    }
    if job.kind == "unlearn":
        spec |= {name: job.spec[name] for name in ("method", "params", "update", "objective")}
        # A job that was queued before requests could ask for any has no number.
        spec["reference_models"] = job.spec.get("reference_models", 0)
    return Assignment(
        job_id=job.job_id,
        kind=job.kind,
        model_id=job.model_id,
        dataset_id=job.dataset_id,
        lineage_id=job.lineage_id,
        input_version_id=job.input_version_id,
        input_sha256=version.checkpoint_sha256 if version else None,
        input_weights_sha256=version.weights_sha256 if version else None,
        manifest_key=dataset.manifest_path or "",
        manifest_sha256=dataset.manifest_sha256 or "",
        root=dataset.root,
        spec=spec,
        recipe=recipe,
    )


def _recipe(spec: dict[str, Any]) -> dict[str, Any]:
    defaults: dict[str, Any] = {"config": {}, "training": {}, "seed": 0}
    return {name: spec.get(name, default) for name, default in defaults.items()}


def _pairs(session: Session, job: Job) -> dict[str, Pairs]:
    if job.kind == "train":
        return {"forget": {}, "forgotten": lineage.left_out(session, job.job_id)}
    left: Pairs = {}
    if job.kind == "unlearn":
        left = lineage.to_forget(session, job.job_id, methods.by_scope())
    before = lineage.forgotten_before(session, job.lineage_id)
    # A request that has any pair left is named whole, so that all of its pairs are measured together;
    # the run forgets those that are not forgotten yet.
    named = lineage.training_pairs(session, list(left))
    return {"forget": named, "forgotten": lineage.without(before, left)}


@dataclass(frozen=True)
class Places:
    """The folders of one attempt.

    Attributes:
        workdir: of this attempt alone.
        state: shared by the attempts of the job that run the same spec.
    """

    workdir: Path
    state: Path

    @property
    def checkpoint(self) -> Path:
        """Where the trainer leaves the checkpoint."""
        return self.workdir / protocol.OUT / protocol.CHECKPOINT


def prepare(context: Context, lease: Lease, assignment: Assignment) -> Places:
    """Make the attempt's folders, fetch what the run reads, and write its spec.

    Raises:
        ObjectMissing: the storage lacks manifest or checkpoint.
        OSError: the work folder has no room, or may not be written.
    """
    home = context.settings.work / assignment.job_id
    places = Places(home / f"attempt-{lease.token}", home / f"state-{assignment.fingerprint[:16]}")
    places.workdir.mkdir(parents=True, exist_ok=True)
    places.state.mkdir(exist_ok=True)
    settings = context.settings
    spec = {
        **assignment.spec,
        "data": {
            "manifest": str(_manifest(context.storage, settings.work, assignment)),
            "root": assignment.root,
        },
        "threads": settings.threads,
        "device": settings.device,
        "precision": settings.precision,
        # Names stay names, in the checkpoint too: no place on this machine is handed on.
        "pretrained_root": str(settings.pretrained),
    }
    if assignment.input_sha256 is not None:
        spec["checkpoint"] = str(_input(context.storage, places, assignment.input_sha256))
    protocol.write_atomically(places.workdir / protocol.SPEC, json.dumps(spec))
    return places


def _manifest(storage: Storage, work: Path, assignment: Assignment) -> Path:
    local = storage.local_path(assignment.manifest_key)
    if local is not None:
        return local
    kept = work / "manifests" / f"{assignment.manifest_sha256}.jsonl"
    if not kept.exists():
        draft = kept.with_name(f".{kept.name}.{assignment.job_id}")
        storage.get_file(assignment.manifest_key, draft)
        draft.replace(kept)
    return kept


def _input(storage: Storage, places: Places, sha256: str) -> Path:
    prefix = checkpoint_key(sha256)
    local = storage.local_path(prefix)
    if local is not None:
        return local
    folder = places.workdir / "input"
    storage.get_directory(prefix, folder)
    return folder
