"""The command line, run as a user runs it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest

from app.auth.service import verify
from app.core.db import Database
from app.core.server_account import pointer_file
from app.core.settings import Settings

ROOT = Path(__file__).parents[2]


def _environment(**settings: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LETHE_")}
    return {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **settings}


def _lethe(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=_environment(**settings),
        cwd="/",
    )


def test_help_names_every_command() -> None:
    done = _lethe("--help")
    assert done.returncode == 0
    for command in ("serve", "demo", "verify", "token", "migrate", "api", "worker"):
        assert re.search(rf"\b{command}\b", done.stdout), command


def test_help_loads_no_heavy_library() -> None:
    code = "import app.cli, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", f"import json; {code}"],
        check=True,
        capture_output=True,
        text=True,
        env=_environment(),
    )
    loaded = set(json.loads(done.stdout))
    assert not loaded & {"fastapi", "sqlalchemy", "celery", "pydantic", "psycopg", "torch"}


def test_a_token_is_made_listed_and_revoked(database: Database, database_url: str) -> None:
    scopes = ("--scope", "deletions:write", "--scope", "deletions:read")
    made = _lethe("token", "create", "Acme", *scopes, LETHE_DATABASE_URL=database_url)
    assert made.returncode == 0, made.stderr
    secret = made.stdout.strip()
    token_id = made.stderr.split(":")[0]
    with database.transaction() as session:
        caller = verify(session, secret)
    assert caller is not None
    assert caller.scopes == {"deletions:read", "deletions:write"}

    listed = _lethe("token", "list", LETHE_DATABASE_URL=database_url).stdout
    assert re.search(rf"{token_id}\s+active\s+Acme\s+deletions:read,deletions:write", listed)
    assert secret not in listed

    assert _lethe("token", "revoke", token_id, LETHE_DATABASE_URL=database_url).returncode == 0
    with database.transaction() as session:
        assert verify(session, secret) is None
    again = _lethe("token", "revoke", token_id, LETHE_DATABASE_URL=database_url)
    assert again.returncode == 1
    assert "No active token" in again.stderr


def test_an_unknown_scope_is_refused_with_those_that_exist(database_url: str) -> None:
    done = _lethe("token", "create", "x", "--scope", "all", LETHE_DATABASE_URL=database_url)
    assert done.returncode == 2
    assert "deletions:write" in done.stderr


def test_migrate_makes_the_tables_and_can_be_repeated(servers: Any) -> None:
    with servers.fresh_database() as url:
        for _ in range(2):
            done = _lethe("migrate", LETHE_DATABASE_URL=url)
            assert done.returncode == 0, done.stderr
        with psycopg.connect(url) as link:
            assert link.execute("SELECT count(*) FROM jobs").fetchone() == (0,)


def test_verify_says_what_is_wrong_with_a_file_that_is_no_certificate(tmp_path: Path) -> None:
    paper = tmp_path / "paper.json"
    paper.write_text("not json")
    done = _lethe("verify", str(paper), "--key", str(paper))
    assert done.returncode == 2
    assert "NOT VERIFIED" in done.stderr


class Served:
    """A `lethe serve` that runs."""

    def __init__(self, data_dir: Path, log: Path, **settings: str) -> None:
        self.log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.cli", "serve", "--port", "0"],
                stdout=output,
                stderr=output,
                env=_environment(LETHE_DATA_DIR=str(data_dir), **settings),
                cwd="/",
            )
        self.url = self.expect(r"ready at (\S+)")

    def expect(self, pattern: str, seconds: float = 90) -> str:
        """Wait until the output matches ``pattern`` and return its group."""
        end = time.monotonic() + seconds
        while (found := re.search(pattern, self.log.read_text())) is None:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.1)
        return found.group(1) if found.groups() else found.group(0)

    def family(self) -> list[psutil.Process]:
        """Return every process that it started."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def stop(self, how: signal.Signals) -> int:
        """End it and return its exit status."""
        self.process.send_signal(how)
        return self.process.wait(60)


@pytest.fixture
def quiet_end(tmp_path: Path) -> Iterator[list[Served]]:
    """End whatever a failed test left running, and remove a database that lies elsewhere."""
    served: list[Served] = []
    yield served
    for one in served:
        if one.process.poll() is None:
            one.stop(signal.SIGTERM)
    pointer = pointer_file(tmp_path / "lethe")
    if pointer.exists():
        shutil.rmtree(pointer.read_text().strip())


def _call(served: Served, token: str, path: str = "/v1/datasets") -> int:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.get(f"{served.url}{path}", headers=headers).status_code


def test_serve_runs_the_whole_service_on_private_servers(
    tmp_path: Path, quiet_end: list[Served]
) -> None:
    data_dir = tmp_path / "lethe"
    served = Served(data_dir, tmp_path / "first.log")
    quiet_end.append(served)
    token = served.expect(r"Token with every scope: (\S+)")
    assert _call(served, token) == 200
    assert _call(served, "lethe_" + "x" * 43) == 401

    made = _lethe("token", "create", "b", "--scope", "admin", LETHE_DATA_DIR=str(data_dir))
    assert made.returncode == 0, made.stderr
    assert _call(served, made.stdout.strip()) == 200

    family = served.family()
    assert {"postgres", "redis-server"} <= {process.name() for process in family}
    api = next(process for process in family if process.cmdline()[1:4] == ["-m", "app.cli", "api"])
    api.kill()
    served.expect("The API ended unexpectedly")
    assert _until_ready(served) == 200

    everything = served.family()
    assert served.stop(signal.SIGINT) != 0
    assert not psutil.wait_procs(everything, timeout=30)[1]

    again = Served(data_dir, tmp_path / "second.log")
    quiet_end.append(again)
    assert again.expect(r"Token with every scope: (\S+)") == token
    assert _call(again, token) == 200
    everything = again.family()
    again.process.kill()
    again.process.wait(30)
    assert not psutil.wait_procs(everything, timeout=60)[1]


def _until_ready(served: Served) -> int:
    end = time.monotonic() + 60
    while True:
        try:
            return httpx.get(f"{served.url}/readyz").status_code
        except httpx.TransportError:
            assert time.monotonic() < end
            time.sleep(0.2)


def test_serve_uses_the_servers_that_are_given(
    settings: Settings, tmp_path: Path, quiet_end: list[Served]
) -> None:
    assert settings.database_url is not None
    assert settings.redis_url is not None
    storage = tmp_path / "elsewhere"
    served = Served(
        tmp_path / "lethe",
        tmp_path / "serve.log",
        LETHE_DATABASE_URL=settings.database_url.get_secret_value(),
        LETHE_REDIS_URL=settings.redis_url.get_secret_value(),
        LETHE_STORAGE_URL=storage.as_uri(),
    )
    quiet_end.append(served)
    names = {process.name() for process in served.family()}
    assert not names & {"postgres", "redis-server"}
    assert "Token with every scope" not in served.log.read_text()
    assert httpx.get(f"{served.url}/readyz").status_code == 200
    assert storage.is_dir()
    assert served.stop(signal.SIGTERM) == 128 + signal.SIGTERM
