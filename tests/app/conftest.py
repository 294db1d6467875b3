"""What tests of several nouns start from."""

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from safetensors.numpy import save

JSON_LINES = {"Content-Type": "application/jsonl"}


def manifest_of(count: int, **members: Any) -> bytes:
    """Return a manifest of image pairs: three of five train, then val, then test."""
    out = io.StringIO()
    splits = ("train", "train", "train", "val", "test")
    for index in range(count):
        row = {
            "id": f"pair-{index}",
            "image": f"{index // 2}.png",
            "text": f"caption {index}",
            "split": splits[index % 5],
            **members,
        }
        out.write(json.dumps(row) + "\n")
    return out.getvalue().encode()


@pytest.fixture
def make_manifest() -> Callable[..., bytes]:
    return manifest_of


@pytest.fixture
def make_dataset(client: TestClient, data_root: Any) -> Callable[..., dict[str, Any]]:
    """Give a function that registers a dataset, with pairs unless ``count`` is 0."""

    def make(name: str = "photos", count: int = 10, **members: Any) -> dict[str, Any]:
        body = {"name": name, "modality": "image", "root": str(data_root), **members}
        answer = client.post("/v1/datasets", json=body)
        assert answer.status_code == 201, answer.text
        dataset: dict[str, Any] = answer.json()
        if count:
            url = f"/v1/datasets/{dataset['dataset_id']}/pairs"
            answer = client.put(url, content=manifest_of(count), headers=JSON_LINES)
            assert answer.status_code == 200, answer.text
            dataset = answer.json()
        return dataset

    return make


@pytest.fixture
def make_model(client: TestClient) -> Callable[..., dict[str, Any]]:
    def make(name: str = "search", **members: Any) -> dict[str, Any]:
        body = {"name": name, "family": "albef", "task": "retrieval", **members}
        answer = client.post("/v1/models", json=body)
        assert answer.status_code == 201, answer.text
        model: dict[str, Any] = answer.json()
        return model

    return make


@pytest.fixture
def checkpoint_files() -> dict[str, bytes]:
    """Give the files of a small checkpoint that is whole."""
    weights = {"fusion.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}
    return {
        "model.safetensors": save(weights),
        "config.json": b'{"hidden_size": 2}',
        "lethe.json": b'{"family": "albef", "task": "retrieval"}',
        "README.md": "# A model — small\n".encode(),
    }


@pytest.fixture
def upload(
    client: TestClient,
    make_model: Callable[..., dict[str, Any]],
    checkpoint_files: dict[str, bytes],
) -> Callable[..., dict[str, Any]]:
    """Give a function that uploads a whole checkpoint and finalizes it."""

    def make(model: dict[str, Any] | None = None, **members: Any) -> dict[str, Any]:
        model = model or make_model()
        url = f"/v1/models/{model['model_id']}/versions"
        answer = client.post(url, json={"source": "upload", **members})
        assert answer.status_code == 201, answer.text
        url += f"/{answer.json()['version_id']}"
        for path, content in checkpoint_files.items():
            assert client.put(f"{url}/files/{path}", content=content).status_code == 201
        answer = client.post(f"{url}/finalize")
        assert answer.status_code == 200, answer.text
        version: dict[str, Any] = answer.json()
        return version

    return make
