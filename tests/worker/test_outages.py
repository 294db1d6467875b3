"""Database and broker that are away for a while, or hang: nothing is lost, nothing happens twice."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from sqlalchemy.engine import make_url

from app.core import migrations
from app.core.db import Database
from app.core.embedded import PostgresServer, free_port
from app.core.settings import Settings
from tests.worker.kill_service import Service, check_ended_once, running, wait_for
from tests.worker.test_kills import in_the_training
from tests.worker.worker_world import World, new_world

SHORT_LEASE, LONG_LEASE = 3.0, 60.0
SOME_SECONDS = {"least_steps": 2, "epochs": 150}
HOURS = {"least_steps": 100_000}


@pytest.fixture
def lease(request: pytest.FixtureRequest) -> float:
    """Give the seconds of a lease; a test may name others."""
    return float(getattr(request, "param", LONG_LEASE))


@pytest.fixture
def service(
    settings: Settings, database: Database, tmp_path: Path, lease: float
) -> Iterator[Service]:
    own = {"port": free_port(), "max_attempts": 10, "lease_seconds": lease}
    with running(settings.model_copy(update=own), database, tmp_path) as service:
        yield service


@pytest.fixture
def outside(service: Service, make_token: Callable[..., str], digits: Path) -> Iterator[World]:
    """Give the world as a caller outside of the service sees it."""
    base = f"http://{service.settings.host}:{service.settings.port}"
    headers = {"Authorization": f"Bearer {make_token('admin')}"}
    with httpx.Client(base_url=base, headers=headers, timeout=60) as client:
        yield new_world(client, digits)


@contextmanager
def _refusing(servers: Any, service: Service) -> Iterator[None]:
    """Have the server end every connection to the service's database and refuse new ones."""
    name = make_url(service.database.url).database

    def allow(answer: str) -> None:
        with servers.administrator() as connection:
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS {answer}')

    allow("false")
    try:
        with servers.administrator() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
            )
        yield
    finally:
        allow("true")


def _in_training(
    service: Service, outside: World, original: Path, params: dict[str, int] = SOME_SECONDS
) -> tuple[str, str]:
    """Return the ids of a deletion's job, in the middle of its training, and of its request."""
    outside.upload(original)
    request = outside.forget("digits-00000", "digits-00001", params=params)
    job_id = request["jobs"][0]["job_id"]
    service.wait_until(job_id, in_the_training)
    return job_id, request["request_id"]


def test_a_database_that_refuses_connections_for_seconds_costs_no_attempt(
    servers: Any, service: Service, outside: World, original: Path
) -> None:
    job_id, request_id = _in_training(service, outside, original)
    with _refusing(servers, service):
        time.sleep(4)
    check_ended_once(service, outside, job_id, request_id)
    assert service.row(job_id)["fencing_token"] == 1


@pytest.mark.parametrize("lease", [SHORT_LEASE], indirect=True)
def test_a_database_that_is_away_for_longer_than_a_lease_costs_that_attempt_only(
    servers: Any, service: Service, outside: World, original: Path
) -> None:
    job_id, request_id = _in_training(service, outside, original)
    token = service.row(job_id)["fencing_token"]
    for trainer in service.trainers():
        trainer.suspend()  # so that it cannot end its work before it is stopped
    with _refusing(servers, service):
        wait_for(lambda: not service.trainers(), "the trainer to be stopped")
    check_ended_once(service, outside, job_id, request_id)
    assert service.row(job_id)["fencing_token"] > token


def test_a_broker_that_is_away_for_seconds_costs_no_attempt_and_no_request(
    service: Service, outside: World, original: Path
) -> None:
    job_id, request_id = _in_training(service, outside, original)
    service.redis.kill()
    late = outside.train()
    time.sleep(4)
    service.redis.start()
    job = service.wait_for_end(late)
    assert (job["status"], job["fencing_token"]) == ("succeeded", 1)
    assert service.row(job_id)["fencing_token"] == 1
    assert sorted(version["number"] for version in outside.versions()) == [1, 2, 3]
    assert outside.request(request_id)["status"] == "completed"


@pytest.fixture
def own_postgres(tmp_path: Path) -> Iterator[PostgresServer]:
    """Give a server that this test may stop."""
    tmp_path.chmod(0o755)
    with PostgresServer(tmp_path / "own", temporary=True, options={"fsync": "off"}) as server:
        migrations.upgrade(server.url)
        yield server


@contextmanager
def _frozen(server: PostgresServer) -> Iterator[None]:
    """Stop every process of a server: it accepts connections, and never answers."""
    leader = psutil.Process(server.pid)
    everyone = [leader, *leader.children(recursive=True)]
    for process in everyone:
        process.suspend()
    try:
        yield
    finally:
        for process in everyone:
            process.resume()


class TestDatabaseThatHangs:
    """With a server of its own, which others need not share."""

    @pytest.fixture
    def database_url(self, own_postgres: PostgresServer) -> str:
        return own_postgres.url

    @pytest.fixture
    def lease(self) -> float:
        return SHORT_LEASE

    def test_its_worker_stops_in_time_although_no_call_returns(
        self, own_postgres: PostgresServer, service: Service, outside: World, original: Path
    ) -> None:
        job_id, _ = _in_training(service, outside, original, HOURS)
        with _frozen(own_postgres):
            wait_for(lambda: not service.trainers(), "the trainer to be stopped")
        wait_for(lambda: service.row(job_id)["fencing_token"] == 2, "another attempt")
        outside.post(f"/v1/jobs/{job_id}/cancel", {})
        assert service.wait_for_end(job_id)["status"] == "cancelled"
        assert [version["number"] for version in outside.versions()] == [1]
