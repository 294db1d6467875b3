"""The whole service on one machine: database, broker, API and worker.

Database and broker are private ones unless URLs of others are set.
"""

import errno
import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
from pydantic import SecretStr

from app.auth.service import create_token, verify
from app.core import migrations
from app.core.data_dir import (
    is_served,
    require_lethe,
    require_places,
    served_alone,
)
from app.core.db import Database
from app.core.embedded import EmbeddedServerError, PostgresServer, RedisServer, free_port
from app.core.reach import require_database
from app.core.server_process import ServerProcess
from app.core.settings import Settings, unknown_variables
from app.start import opened_log, require_given

_SOURCES = Path(__file__).parents[1]
_URLS = "servers.json"
_TOKEN = "token"  # noqa: S105 - the name of a file
_START_SECONDS = 60.0


class _LetheProcess(ServerProcess):
    """A process of the service itself, told by its environment what the settings are."""

    def __init__(self, settings: Settings, *, show_log: bool) -> None:
        super().__init__(settings.data_dir)
        self._settings = settings
        self.log = None if show_log else self.log

    def _environment(self) -> Mapping[str, str]:
        return environment(self._settings)


class ApiProcess(_LetheProcess):
    """The API, started by the command that its container runs too."""

    name = "api"
    label = "API"

    @property
    def url(self) -> str:
        """Base URL of the API."""
        return f"http://{self._settings.host}:{self._settings.port}"

    def _prepare(self) -> Sequence[str]:
        # Here, where no API of ours is left: one whose owner was killed has the port until it ends.
        _require_port(self._settings)
        return [sys.executable, "-m", "app.cli", "api"]

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).is_success
        except httpx.HTTPError:
            return False


class WorkerProcess(_LetheProcess):
    """One Celery worker, started by the command that its container runs too."""

    name = "worker"
    label = "worker"

    @property
    def url(self) -> str:
        """A worker listens on nothing; this is the broker that it takes jobs from."""
        return _secret(self._settings.redis_url)

    def _prepare(self) -> Sequence[str]:
        return [sys.executable, "-m", "app.cli", "worker"]

    def _answers(self) -> bool:
        return True  # jobs wait until it is ready


@dataclass(frozen=True)
class RunningService:
    """The service while it runs.

    Attributes:
        url: base URL of the API.
        token: a token with every scope; None when the database is not a private one.
        settings: the settings that API and worker run with.
        key_id: what heads and certificates name the log's key by.
        processes: what runs, in the order of its start.
    """

    url: str
    token: str | None
    settings: Settings
    key_id: str
    processes: tuple[ServerProcess, ...]


@contextmanager
def running_service(
    settings: Settings, *, temporary: bool = False, show_logs: bool = False
) -> Iterator[RunningService]:
    """Run the service while the block runs; nothing of it outlives this process.

    Args:
        settings: of the service; servers whose URLs are not set are started, port 0 is replaced.
        temporary: remove the data of private servers at the end.
        show_logs: have API and worker log on our standard error, not into files in ``data_dir``.

    Raises:
        SettingsError: a folder, the signing key or the device cannot be used, or another service runs
            in the data directory.
        UnreachableError: a server that is given cannot be reached.
        EmbeddedServerError: a part did not start, or the port is taken.
    """
    require_given(settings)
    with ExitStack() as stack:
        tell = stack.enter_context(served_alone(settings.data_dir))
        require_places(settings, trainers=True)
        servers = _private_servers(settings, temporary=temporary)
        for server in servers:
            stack.enter_context(server)
        ready = _complete(settings, servers)
        _upgrade(_secret(ready.database_url))
        signer = opened_log(ready, _secret(ready.database_url))
        stack.enter_context(_urls_on_disk(ready))
        api = stack.enter_context(ApiProcess(ready, show_log=show_logs))
        worker = stack.enter_context(WorkerProcess(ready, show_log=show_logs))
        tell(api.url)
        token = None if settings.database_url else _kept_token(ready)
        yield RunningService(api.url, token, ready, signer.key_id, (*servers, api, worker))


@contextmanager
def reachable_database(settings: Settings) -> Iterator[str]:
    """Give the URL of the service's database, starting the private one if it does not run.

    Its tables are brought to the newest migration. No data directory is made.

    Raises:
        SettingsError: no Lethe has its database in the data directory.
        UnreachableError: it cannot be reached.
        EmbeddedServerError: it does not start.
    """
    with ExitStack() as stack:
        url = _running_database(settings)
        if url is None:
            require_lethe(settings.data_dir)
            url = stack.enter_context(PostgresServer(settings.data_dir)).url
        _upgrade(url)
        yield url


def _upgrade(url: str) -> None:
    require_database(url)
    migrations.upgrade(url)


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment of a process of the service: ours, with these settings.

    Variables that are none stay out, so that one process has warned of them.
    """
    given = settings.model_dump(mode="python", exclude_none=True)
    useless = unknown_variables()
    ours = {name: value for name, value in os.environ.items() if name not in useless}
    values = {f"LETHE_{name.upper()}": _as_text(value) for name, value in given.items()}
    threads = {"OMP_NUM_THREADS": str(settings.threads)} | ours
    return {**threads, **values, "PYTHONPATH": _search_path()}


def _as_text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, Path):
        return str(value.absolute())
    return json.dumps(value) if isinstance(value, list) else str(value)


def _search_path() -> str:
    """Return PYTHONPATH with the folder of our own packages, for an installation in place."""
    rest = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join([str(_SOURCES), *(part for part in rest.split(os.pathsep) if part)])


def _secret(value: SecretStr | None) -> str:
    return value.get_secret_value() if value is not None else ""


def _private_servers(settings: Settings, *, temporary: bool) -> tuple[ServerProcess, ...]:
    servers: list[ServerProcess] = []
    if settings.database_url is None:
        servers.append(PostgresServer(settings.data_dir, temporary=temporary))
    if settings.redis_url is None:
        servers.append(RedisServer(settings.data_dir, temporary=temporary))
    return tuple(servers)


def _require_port(settings: Settings) -> None:
    """Refuse a port that another service has: its answers would pass for those of our API."""
    try:
        kind, _, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM
        )[0]
    except OSError as error:
        raise _no_address(settings.host, error) from error
    with socket.socket(kind, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise _no_address(settings.host, error) from error
            raise EmbeddedServerError(
                f"The port {settings.port} of {settings.host} cannot be used ({error.strerror}). Name "
                "another one with --port; --port 0 takes any that is free."
            ) from error


def _no_address(host: str, error: OSError) -> EmbeddedServerError:
    return EmbeddedServerError(
        f"The address {host} cannot be listened on ({error.strerror}). Name another one with --host; "
        "127.0.0.1 is this machine alone."
    )


def _complete(settings: Settings, servers: Sequence[ServerProcess]) -> Settings:
    """Return the settings with the URLs of the private servers and a port."""
    urls = {type(server): SecretStr(server.url) for server in servers}
    return settings.model_copy(
        update={
            "data_dir": settings.data_dir.absolute(),
            "database_url": settings.database_url or urls[PostgresServer],
            "redis_url": settings.redis_url or urls[RedisServer],
            "port": settings.port or free_port(),
        }
    )


@contextmanager
def _urls_on_disk(settings: Settings) -> Iterator[None]:
    """Let other commands of this user find the servers while they run."""
    settings.data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
    path = settings.data_dir / _URLS
    _write_private(path, json.dumps({"database_url": _secret(settings.database_url)}))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _running_database(settings: Settings) -> str | None:
    """Return the URL of the database that is given or runs; waits for a service that is starting."""
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    end = time.monotonic() + _START_SECONDS
    while True:
        with suppress(OSError, ValueError, KeyError, psycopg.OperationalError):
            url = str(json.loads((settings.data_dir / _URLS).read_text())["database_url"])
            psycopg.connect(url.replace("+psycopg", "", 1), connect_timeout=3).close()
            return url
        if time.monotonic() > end or not is_served(settings.data_dir):
            return None
        time.sleep(0.2)


def _kept_token(settings: Settings) -> str:
    """Return the token of the private service: the one from last time if it still works."""
    path = settings.data_dir / _TOKEN
    database = Database(_secret(settings.database_url), pool_size=1)
    try:
        with database.transaction() as session:
            kept = path.read_text().strip() if path.exists() else ""
            if kept and verify(session, kept) is not None:
                return kept
            _, secret = create_token(session, "embedded", ["admin"])
        _write_private(path, f"{secret}\n")
        return secret
    finally:
        database.dispose()


def _write_private(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
