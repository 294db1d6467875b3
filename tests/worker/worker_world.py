"""What tests of the worker share: a registered dataset and model, and what callers do with them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from app.registry.catalogue import catalogue

RECIPE = {"epochs": 2, "batch_size": 16}
FAST = {"least_steps": 2, "epochs": 2}


def recipe(**training: Any) -> dict[str, Any]:
    """Return what a version of this world is made of."""
    config = catalogue().families["albef"].tiny_config
    return {"config": config, "training": {**RECIPE, **training}, "seed": 0}


@dataclass(frozen=True)
class World:
    """A registered dataset and model, and the ways in which tests use them over HTTP."""

    client: httpx.Client
    dataset_id: str
    model_id: str

    def train(self, **training: Any) -> str:
        """Queue the training of a version; returns the job's id."""
        body = {"source": "training", "dataset_id": self.dataset_id, **recipe(**training)}
        return str(self.post(f"/v1/models/{self.model_id}/versions", body)["job_id"])

    def upload(self, checkpoint: Path, *, evaluate: bool = False) -> str:
        """Register a checkpoint that learned from the dataset; returns the version's id."""
        body = {
            "source": "upload",
            "dataset_id": self.dataset_id,
            "recipe": recipe(),
            "evaluate": evaluate,
        }
        version_id = str(self.post(f"/v1/models/{self.model_id}/versions", body)["version_id"])
        place = f"/v1/models/{self.model_id}/versions/{version_id}"
        for file in sorted(checkpoint.iterdir()):
            answer = self.client.put(f"{place}/files/{file.name}", content=file.read_bytes())
            assert answer.is_success, answer.text
        self.post(f"{place}/finalize", {})
        return version_id

    def forget(self, *pair_ids: str, **more: Any) -> dict[str, Any]:
        """File a deletion request; returns it."""
        targets = {"pair_ids": pair_ids}
        body = {"dataset_id": self.dataset_id, "targets": targets, "params": FAST, **more}
        return self.post("/v1/deletion-requests", body)

    def request(self, request_id: str) -> dict[str, Any]:
        """Read a deletion request."""
        return self.get(f"/v1/deletion-requests/{request_id}")

    def job(self, job_id: str) -> dict[str, Any]:
        """Read a job."""
        return self.get(f"/v1/jobs/{job_id}")

    def versions(self) -> list[dict[str, Any]]:
        """Read the model's versions, newest first."""
        return list(self.get(f"/v1/models/{self.model_id}/versions")["items"])

    def get(self, path: str) -> dict[str, Any]:
        """Read a resource."""
        answer = self.client.get(path)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Post to a resource."""
        answer = self.client.post(path, json=body)
        assert answer.is_success, answer.text
        return dict(answer.json())


def new_world(client: httpx.Client, digits: Path) -> World:
    """Register the digits and a model over HTTP."""
    dataset = {"name": "digits", "modality": "image", "root": str(digits)}
    dataset_id = client.post("/v1/datasets", json=dataset).json()["dataset_id"]
    answer = client.put(
        f"/v1/datasets/{dataset_id}/pairs",
        content=(digits / "manifest.jsonl").read_bytes(),
        headers={"Content-Type": "application/x-ndjson"},
    )
    assert answer.status_code == 200, answer.text
    model = {"name": "search", "family": "albef", "task": "retrieval"}
    model_id = client.post("/v1/models", json=model).json()["model_id"]
    return World(client, dataset_id, model_id)
