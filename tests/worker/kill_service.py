"""The service as real processes that tests can kill, and the one check that all of them end with."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from sqlalchemy import text

from app.core.db import Database
from app.core.embedded import RedisServer
from app.core.settings import Settings
from app.launch import environment
from app.ledger import merkle
from app.ledger.tree_head import verify_note
from app.ledger.verify import verify_certificate
from tests.worker.worker_world import World

PATIENCE_SECONDS = 240.0
Row = dict[str, Any]


@dataclass
class Service:
    """API, worker and Redis of a test."""

    settings: Settings
    database: Database
    redis: RedisServer
    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """Start ``api`` or ``worker`` by the command that their containers run."""
        log = (self.folder / f"{name}.log").open("ab")
        self.processes[name] = subprocess.Popen(
            [sys.executable, "-m", "app.cli", name],
            env=environment(self.settings),
            stdout=log,
            stderr=log,
        )
        log.close()
        if name == "api":
            wait_for(self._api_answers, "the API to answer")

    def kill(self, name: str) -> None:
        """Kill a process at once (SIGKILL) and start it again."""
        process = self.processes[name]
        process.kill()
        process.wait()
        self.start(name)

    def kill_redis(self) -> None:
        """Kill Redis at once and start it again."""
        self.redis.kill()
        self.redis.start()

    def kill_trainer(self) -> None:
        """Kill the trainer at once, with its group."""
        for process in self.trainers():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def cut_database(self) -> None:
        """End every connection to the database but ours, from the server's side."""
        with self.database.engine.connect() as connection:
            connection.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )

    def trainers(self) -> list[psutil.Process]:
        """Return the trainers of this service."""
        work = str(self.settings.work)
        found = []
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []
            if "worker.trainer" in command and any(part.startswith(work) for part in command):
                found.append(process)
        return found

    def row(self, job_id: str) -> Row:
        """Read a job's row, without the API."""
        with self.database.engine.connect() as connection:
            query = text("SELECT * FROM jobs WHERE job_id = :job_id")
            return dict(connection.execute(query, {"job_id": job_id}).mappings().one())

    def wait_until(self, job_id: str, moment: Callable[[Row], bool]) -> None:
        """Wait for a moment in a job's life, or its end."""
        wait_for(lambda: moment(row := self.row(job_id)) or ended(row), "a moment of the job")

    def wait_for_end(self, job_id: str) -> Row:
        """Wait until a job has ended."""
        wait_for(lambda: ended(self.row(job_id)), "the job to end")
        return self.row(job_id)

    def stop(self) -> None:
        """End every process."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _api_answers(self) -> bool:
        url = f"http://{self.settings.host}:{self.settings.port}/livez"
        with suppress(httpx.HTTPError):
            return httpx.get(url, timeout=2).is_success
        return False


@contextmanager
def running(settings: Settings, database: Database, folder: Path) -> Iterator[Service]:
    """Run API, worker and a Redis of their own."""
    with RedisServer(folder / "redis", temporary=True) as redis:
        own = settings.model_copy(update={"redis_url": redis.url})
        service = Service(own, database, redis, folder)
        try:
            service.start("api")
            service.start("worker")
            yield service
        finally:
            service.stop()


def ended(row: Row) -> bool:
    """Tell whether a job's row says that it has ended."""
    return row["finished_time"] is not None


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {PATIENCE_SECONDS:.0f} s for {what}")
        time.sleep(0.02)


def check_ended_once(service: Service, world: World, job_id: str, request_id: str) -> None:
    """Check that a deletion left one version, one audit, one set of leaves, and a log that verifies."""
    job = service.wait_for_end(job_id)
    assert job["status"] == "succeeded", job["error"]
    assert [version["number"] for version in world.versions()] == [2, 1]
    assert _count(service, "SELECT count(*) FROM audits WHERE job_id = :job_id", job_id=job_id) == 1
    version_id = job["output_version_id"]
    assert _leaves(service, job_id) == ["job_started"]
    assert _leaves(service, version_id) == ["version_produced", "audit_recorded"]
    assert _leaves(service, request_id) == ["request_received", "request_completed"]
    assert world.request(request_id)["status"] == "completed"
    _check_log(service, world, request_id)
    wait_for(lambda: not service.trainers(), "every trainer to be gone")
    wait_for(lambda: not (service.settings.work / job_id).exists(), "the work folder to be gone")
    kept = service.settings.data_dir / "storage" / "checkpoints"
    assert len(list(kept.iterdir())) == 2


def _check_log(service: Service, world: World, request_id: str) -> None:
    bundle = world.get(f"/v1/audit/requests/{request_id}/certificate")
    key = world.client.get("/v1/ledger/public-key").text
    report = verify_certificate(bundle, key)
    assert report.ok, report
    with service.database.engine.connect() as connection:
        query = text("SELECT leaf_index, body FROM ledger_leaves ORDER BY leaf_index")
        rows = connection.execute(query).all()
    assert [row.leaf_index for row in rows] == list(range(len(rows)))
    head = verify_note(world.get("/v1/ledger/head")["note"], key, service.settings.ledger_origin)
    assert head.size == len(rows)
    assert head.root == merkle.root_hash([merkle.leaf_hash(bytes(row.body)) for row in rows])


def _leaves(service: Service, subject: str) -> list[str]:
    with service.database.engine.connect() as connection:
        query = text("SELECT kind FROM ledger_leaves WHERE subject = :subject ORDER BY leaf_index")
        return list(connection.execute(query, {"subject": subject}).scalars())


def _count(service: Service, query: str, **values: str) -> int:
    with service.database.engine.connect() as connection:
        return int(connection.execute(text(query), values).scalar_one())
