"""What tests of deletion requests start from."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx import Response

from app.core.db import Database
from tests.app.deletions.deletion_rows import Rows


@pytest.fixture
def rows(database: Database, app: FastAPI) -> Rows:
    """Give a dataset of 20 training pairs and a model without versions."""
    return Rows.make(database, app.state.signer, app.state.queue)


Post = Callable[..., Response]


@pytest.fixture
def post(client: TestClient, rows: Rows) -> Post:
    """Give a function that files a deletion request of training pairs, named by their numbers."""

    def file(*numbers: int, headers: dict[str, str] | None = None, **more: Any) -> Response:
        targets = {"pair_ids": [f"train-{number}" for number in numbers]}
        body = {"dataset_id": rows.dataset_id, "targets": targets, **more}
        return client.post("/v1/deletion-requests", json=body, headers=headers)

    return file


Read = Callable[[str], dict[str, Any]]


@pytest.fixture
def read(client: TestClient) -> Read:
    """Give a function that reads a deletion request."""
    return lambda request_id: dict(client.get(f"/v1/deletion-requests/{request_id}").json())
