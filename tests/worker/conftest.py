"""A small world for tests of the worker: real servers, real digits, the real engine, seconds a job."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.core.settings import Settings
from tests.worker.worker_world import World, new_world, recipe
from worker import protocol
from worker.context import Context
from worker.supervision import run_trainer

PAIRS = 60


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of digit pairs."""
    folder = tmp_path_factory.mktemp("digits")
    command = [sys.executable, "-m", "engine.data.digits", str(folder), "--pairs", str(PAIRS)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def original(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder of a checkpoint that learned from the digits."""
    workdir = tmp_path_factory.mktemp("original")
    data = {"manifest": str(digits / "manifest.jsonl"), "root": str(digits)}
    spec = {"action": "train", "data": data, "family": "albef", "task": "retrieval", **recipe()}
    (workdir / protocol.SPEC).write_text(json.dumps(spec))
    run_trainer(
        workdir,
        workdir / "state",
        threads=1,
        cache=workdir / "cache",
        save_every=30,
        report=lambda _: None,
        check=lambda: None,
    )
    return workdir / protocol.OUT / protocol.CHECKPOINT


@pytest.fixture
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder below which datasets may lie."""
    return tmp_path_factory.getbasetemp()


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Give settings with short times."""
    times = {"lease_seconds": 4.0, "heartbeat_seconds": 0.2, "redispatch_seconds": 1.0}
    return settings.model_copy(update={**times, "retry_seconds": 0.0, "device": "cpu"})


@pytest.fixture
def context(settings: Settings) -> Iterator[Context]:
    """Give a worker's context, for running jobs in this process."""
    context = Context.from_settings(settings)
    yield context
    context.close()


@pytest.fixture
def world(client: TestClient, digits: Path) -> World:
    """Give the world."""
    return new_world(client, digits)
