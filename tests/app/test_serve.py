"""`lethe serve` as a whole: started, interrupted in its terminal, killed, and started again."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from app.core.embedded import free_port
from app.core.server_account import pointer_file
from app.core.settings import Settings
from tests.terminal import Terminal, environment
from tests.worker.worker_world import World, new_world

SHORT_TIMES = {
    "LETHE_LEASE_SECONDS": "4",
    "LETHE_HEARTBEAT_SECONDS": "0.2",
    "LETHE_REDISPATCH_SECONDS": "1",
    "LETHE_SAVE_SECONDS": "0",
    "LETHE_RETRY_SECONDS": "0",
    "LETHE_DEVICE": "cpu",
}
SOME_SECONDS = 300  # epochs: some three seconds on a fast machine, when nothing else runs
STOP_SECONDS = 30  # on a machine with much else to do; some three seconds on an idle one


class Served:
    """A `lethe serve` in a terminal."""

    def __init__(self, data_dir: Path, port: int = 0, **settings: str) -> None:
        env = environment(LETHE_DATA_DIR=str(data_dir), **settings)
        self.terminal = Terminal("serve", "--port", str(port), cwd=data_dir.parent, env=env)
        self.url = self.terminal.expect(r"ready at (\S+)")

    @property
    def token(self) -> str:
        """The token that it printed."""
        return self.terminal.expect(r"Token with every scope: (\S+)")

    def status_of(self, token: str, path: str = "/v1/datasets") -> int:
        """Ask for a resource; returns the answer's status."""
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.get(f"{self.url}{path}", headers=headers).status_code

    @contextmanager
    def caller(self) -> Iterator[httpx.Client]:
        """Give a client that may do everything."""
        headers = {"Authorization": f"Bearer {self.token}"}
        with httpx.Client(base_url=self.url, headers=headers, timeout=60) as client:
            yield client

    def part(self, *command: str) -> psutil.Process:
        """Return the process of a command such as ``app.cli api``."""
        for process in self.terminal.family():
            with suppress(psutil.Error):  # it ended meanwhile
                if process.cmdline()[2:4] == list(command):
                    return process
        raise AssertionError(f"no process runs {command}")

    def wait_until_ready(self) -> None:
        """Wait until database, broker and storage can be used."""
        _wait_for(lambda: httpx.get(f"{self.url}/readyz").is_success, "the service to be ready")


def _wait_for(condition: Callable[[], bool], what: str, seconds: float = 150) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.1)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Give a function that starts the service in one data directory; all is ended afterwards."""
    started: list[Served] = []

    def start(port: int = 0, **settings: str) -> Served:
        started.append(Served(tmp_path / "lethe", port, **settings))
        return started[-1]

    yield start
    for served in started:
        served.terminal.close()
    pointer = pointer_file(tmp_path / "lethe")
    if pointer.exists():
        shutil.rmtree(pointer.read_text().strip())


Serve = Callable[..., Served]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder of digit pairs."""
    folder = tmp_path_factory.mktemp("data") / "digits"
    command = [sys.executable, "-m", "engine.data.digits", str(folder), "--pairs", "60"]
    subprocess.run(command, check=True, env=environment(), capture_output=True)
    return folder


@pytest.fixture
def settings_for_digits(digits: Path) -> dict[str, str]:
    """Give the settings of a service that may read the digits and waits for nothing long."""
    return {**SHORT_TIMES, "LETHE_DATA_ROOTS": json.dumps([str(digits)])}


def _training(world: World, job_id: str) -> int:
    """Return the step at which a job's training is, 0 before it."""
    progress = world.job(job_id)["progress"]
    return progress["step"] if progress["phase"] == "train" else 0


def _ended_once(world: World, job_id: str, data_dir: Path) -> None:
    """Check that a training left one version, one audit, its leaves once, and nothing else."""
    _wait_for(lambda: world.job(job_id)["finished_time"] is not None, "the job to end")
    job = world.job(job_id)
    assert job["status"] == "succeeded", job["error"]
    assert [version["number"] for version in world.versions()] == [1]
    leaves = world.get("/v1/ledger/entries")["items"]
    assert [leaf["kind"] for leaf in leaves] == [
        "dataset_registered",
        "job_started",
        "version_registered",
        "audit_recorded",
    ]
    assert world.get("/v1/ledger/head")["size"] == len(leaves)
    _wait_for(lambda: not list((data_dir / "work").glob("job_*")), "the work folder to be empty")
    assert len(list((data_dir / "storage" / "checkpoints").iterdir())) == 1


def _lethe(data_dir: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *command],
        env=environment(LETHE_DATA_DIR=str(data_dir)),
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_serve_runs_the_whole_service_on_private_servers(serve: Serve, tmp_path: Path) -> None:
    data_dir = tmp_path / "lethe"
    served = serve()
    assert served.status_of(served.token) == 200
    assert served.status_of("lethe_" + "x" * 43) == 401
    key_id = served.terminal.expect(r"log lethe\.local/log is signed with the key (\w+)\.")
    with served.caller() as client:
        assert client.get("/v1/ledger/head").json()["key_id"] == key_id

    made = _lethe(data_dir, "token", "create", "b", "--scope", "admin")
    assert served.status_of(made.stdout.strip()) == 200

    began = time.monotonic()
    second = _lethe(data_dir, "serve", "--port", "0")
    assert time.monotonic() - began < STOP_SECONDS
    assert (second.returncode, second.stdout) == (2, "")
    by = f"served already by process {served.terminal.process.pid} at {served.url}"
    assert by in second.stderr
    assert len(second.stderr.splitlines()) == 1

    family = served.terminal.family()
    assert {"postgres", "redis-server"} <= {process.name() for process in family}
    served.part("app.cli", "api").kill()
    served.terminal.expect("The API ended unexpectedly")
    served.wait_until_ready()

    token, everything = served.token, served.terminal.family()
    served.terminal.press_ctrl_c()
    assert served.terminal.wait() == 128 + signal.SIGINT
    assert not psutil.wait_procs(everything, timeout=5)[1]
    assert " active " in _lethe(data_dir, "token", "list").stdout  # on servers of its own

    again = serve()
    assert again.token == token
    assert again.status_of(token) == 200


def test_serve_uses_the_servers_that_are_given(
    settings: Settings, serve: Serve, tmp_path: Path
) -> None:
    assert settings.database_url is not None
    assert settings.redis_url is not None
    storage = tmp_path / "elsewhere"
    served = serve(
        LETHE_DATABASE_URL=settings.database_url.get_secret_value(),
        LETHE_REDIS_URL=settings.redis_url.get_secret_value(),
        LETHE_STORAGE_URL=storage.as_uri(),
    )
    names = {process.name() for process in served.terminal.family()}
    assert not names & {"postgres", "redis-server"}
    assert "Token with every scope" not in served.terminal.screen
    assert httpx.get(f"{served.url}/readyz").status_code == 200
    assert storage.is_dir()
    served.terminal.process.terminate()
    assert served.terminal.wait() == 128 + signal.SIGTERM


def test_a_killed_worker_is_brought_back_and_the_training_goes_on_where_it_was(
    serve: Serve, settings_for_digits: dict[str, str], digits: Path, tmp_path: Path
) -> None:
    served = serve(**settings_for_digits)
    with served.caller() as client:
        world = new_world(client, digits)
        job_id = world.train(epochs=SOME_SECONDS)
        _wait_for(lambda: _training(world, job_id) > 30, "the training to be under way")
        celery = served.part("celery", "-A")
        celery.kill()
        served.terminal.expect("The worker ended unexpectedly")
        _ended_once(world, job_id, tmp_path / "lethe")
        outcomes = [attempt["outcome"] for attempt in world.job(job_id)["attempts"]]
        assert outcomes == ["worker_lost", "succeeded"]
        assert _first_step(world, job_id, attempt=2) > 30


def _first_step(world: World, job_id: str, attempt: int) -> int:
    """Return the first step of the training, or its last phase, that an attempt reported."""
    number = 0
    for event in world.get(f"/v1/jobs/{job_id}/events?limit=1000")["items"]:
        number = event["data"].get("attempt", number)
        if number == attempt and event["data"].get("phase") in {"train", "evaluate_after"}:
            trained = event["data"]["phase"] == "train"
            return int(event["data"]["step"]) if trained else sys.maxsize
    return 0


@pytest.mark.parametrize("everything", [False, True], ids=["serve alone", "every process"])
def test_a_killed_serve_is_started_again_at_once_and_the_training_ends_once(
    serve: Serve,
    settings_for_digits: dict[str, str],
    digits: Path,
    tmp_path: Path,
    *,
    everything: bool,
) -> None:
    port = free_port()
    first = serve(port, **settings_for_digits)
    with first.caller() as client:
        world = new_world(client, digits)
        job_id = world.train(epochs=SOME_SECONDS)
        _wait_for(lambda: _training(world, job_id) > 30, "the training to be under way")
    parts = first.terminal.family()
    first.terminal.process.kill()
    for part in parts if everything else []:  # as when the machine goes down
        with suppress(psutil.NoSuchProcess):
            part.kill()
    first.terminal.process.wait()

    second = serve(
        port, **settings_for_digits
    )  # while the parts of the first one may still be ending
    assert second.token == first.token
    assert not psutil.wait_procs(parts, timeout=5)[1]
    with second.caller() as client:
        _ended_once(World(client, world.dataset_id, world.model_id), job_id, tmp_path / "lethe")


def _preparing(world: World, job_id: str) -> bool:
    return bool(world.job(job_id)["status"] == "running")


def _under_way(world: World, job_id: str) -> bool:
    return _training(world, job_id) > 3


@pytest.mark.parametrize(
    ("moment", "how"), [(_preparing, signal.SIGINT), (_under_way, signal.SIGTERM)]
)
def test_serve_stops_within_seconds_while_a_trainer_works(
    serve: Serve,
    settings_for_digits: dict[str, str],
    digits: Path,
    moment: Callable[[World, str], bool],
    how: signal.Signals,
) -> None:
    served = serve(**settings_for_digits)
    with served.caller() as client:
        world = new_world(client, digits)
        job_id = world.train(epochs=10_000)
        _wait_for(lambda: moment(world, job_id), "the moment to stop at")
    everything = served.terminal.family()
    began = time.monotonic()
    if how == signal.SIGINT:
        served.terminal.press_ctrl_c()
    else:
        served.terminal.process.send_signal(how)
    assert served.terminal.wait() == 128 + how
    assert not psutil.wait_procs(everything, timeout=5)[1]
    assert time.monotonic() - began < STOP_SECONDS
    assert "Traceback" not in served.terminal.screen


def test_an_impatient_second_ctrl_c_leaves_no_process_behind_either(serve: Serve) -> None:
    served = serve()
    everything = served.terminal.family()
    for _ in range(3):
        served.terminal.press_ctrl_c()
        time.sleep(0.2)
    assert served.terminal.wait() == 128 + signal.SIGINT
    assert not psutil.wait_procs(everything, timeout=60)[1]


def test_a_port_that_another_service_has_ends_it_at_once_with_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", "serve", "--port", str(port)],
            check=False,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment(LETHE_DATA_DIR=str(tmp_path / "data")),
            timeout=120,
        )
    assert done.returncode == 1
    assert f"The port {port} of 127.0.0.1 cannot be used" in done.stderr
    assert "ready" not in done.stdout
