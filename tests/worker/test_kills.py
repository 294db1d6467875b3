"""Whatever is killed, whenever: each job ends once, with one version, one audit, one set of leaves."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.core.db import Database
from app.core.embedded import free_port
from app.core.settings import Settings
from tests.worker.kill_service import Row, Service, check_ended_once, ended, running
from tests.worker.worker_world import World, new_world

SLOW = {"least_steps": 2, "epochs": 500}


def _phase(row: Row) -> Any:
    return row["progress"].get("phase")


# A moment may be over before it is seen: then the one after it counts.
def at_the_claim(row: Row) -> bool:
    return row["status"] in {"preparing", "running", "auditing"}


def at_the_start(row: Row) -> bool:
    return row["status"] in {"running", "auditing"}


def in_the_training(row: Row) -> bool:
    return _phase(row) == "multidelete" or row["progress"].get("step", 0) > 1


def at_the_record(row: Row) -> bool:
    return row["status"] == "auditing"


MOMENTS = [at_the_claim, at_the_start, in_the_training, at_the_record]


@pytest.fixture
def service(settings: Settings, database: Database, tmp_path: Path) -> Iterator[Service]:
    own = {"port": free_port(), "max_attempts": 10, "lease_seconds": 3.0}
    with running(settings.model_copy(update=own), database, tmp_path) as service:
        yield service


@pytest.fixture
def outside(service: Service, make_token: Callable[..., str], digits: Path) -> Iterator[World]:
    """Give the world as a caller outside of the service sees it."""
    base = f"http://{service.settings.host}:{service.settings.port}"
    headers = {"Authorization": f"Bearer {make_token('admin')}"}
    transport = httpx.HTTPTransport(retries=3)
    with httpx.Client(base_url=base, headers=headers, transport=transport, timeout=30) as client:
        yield new_world(client, digits)


def _kill_at_every_moment(
    service: Service, outside: World, original: Path, kill: Callable[[], None]
) -> None:
    outside.upload(original)
    request = outside.forget("digits-00000", "digits-00001", params=SLOW)
    job_id = request["jobs"][0]["job_id"]
    killed = 0
    for moment in MOMENTS:
        service.wait_until(job_id, moment)
        if ended(service.row(job_id)):
            break
        kill()
        killed += 1
    assert killed >= 3, service.row(job_id)
    check_ended_once(service, outside, job_id, request["request_id"])


def test_a_killed_trainer_changes_nothing_in_the_end(
    service: Service, outside: World, original: Path
) -> None:
    _kill_at_every_moment(service, outside, original, service.kill_trainer)


def test_a_killed_worker_changes_nothing_in_the_end(
    service: Service, outside: World, original: Path
) -> None:
    _kill_at_every_moment(service, outside, original, lambda: service.kill("worker"))


def test_a_killed_redis_changes_nothing_in_the_end(
    service: Service, outside: World, original: Path
) -> None:
    _kill_at_every_moment(service, outside, original, service.kill_redis)


def test_a_killed_api_changes_nothing_in_the_end(
    service: Service, outside: World, original: Path
) -> None:
    _kill_at_every_moment(service, outside, original, lambda: service.kill("api"))


def test_cut_database_connections_change_nothing_in_the_end(
    service: Service, outside: World, original: Path
) -> None:
    _kill_at_every_moment(service, outside, original, service.cut_database)


def test_a_worker_that_is_told_to_end_leaves_its_job_to_the_next(
    service: Service, outside: World, original: Path
) -> None:
    outside.upload(original)
    request = outside.forget("digits-00000", "digits-00001", params=SLOW)
    job_id = request["jobs"][0]["job_id"]
    service.wait_until(job_id, in_the_training)
    worker = service.processes["worker"]
    worker.terminate()
    assert worker.wait(30) == 0
    assert service.trainers() == []
    row = service.row(job_id)
    assert (row["status"], row["attempts"]) == ("queued", 0)
    service.start("worker")
    check_ended_once(service, outside, job_id, request["request_id"])
