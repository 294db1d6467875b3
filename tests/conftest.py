"""Real servers for every test of the service: PostgreSQL and Redis, private or given."""

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr
from redis import Redis
from sqlalchemy.engine import make_url

from app.auth.service import create_token
from app.core import migrations
from app.core.db import Database
from app.core.embedded import PostgresServer, RedisServer
from app.core.settings import Settings
from app.main import create_app

# Lost data costs a test run nothing; waiting for disks costs it minutes.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
NEEDED = 4 * 2**30


@dataclass(frozen=True)
class Servers:
    """URLs of the servers of this test session, and the migrated database to copy."""

    database_url: str
    redis_url: str
    template: str

    def url_of(self, database: str) -> str:
        """Return the URL of another database of the same server."""
        url = make_url(self.database_url).set(database=database)
        return url.render_as_string(hide_password=False)

    @contextmanager
    def administrator(self) -> Iterator[psycopg.Connection[Any]]:
        """Connect to make and drop databases."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            yield connection

    @contextmanager
    def fresh_database(self, template: str = "template0") -> Iterator[str]:
        """Make a database of its own, give its URL, drop it at the end."""
        name = f"lethe_test_{uuid4().hex}"
        with self.administrator() as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        try:
            yield self.url_of(name)
        finally:
            with self.administrator() as connection:
                connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Path]:
    """Give a folder for the servers' data: in memory where there is room, since each test makes a
    database and disks are slow at that.
    """
    memory = Path("/dev/shm")  # noqa: S108 - the folder in it has a name of its own
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > NEEDED
    folder = Path(tempfile.mkdtemp(prefix="lethe-test-", dir=memory if roomy else None))
    folder.chmod(0o755)  # PostgreSQL runs as another account when the tests run as root
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def servers(server_folder: Path) -> Iterator[Servers]:
    """Start the servers, or take those of LETHE_TEST_DATABASE_URL and LETHE_TEST_REDIS_URL."""
    database_url = os.environ.get("LETHE_TEST_DATABASE_URL")
    redis_url = os.environ.get("LETHE_TEST_REDIS_URL")
    template = f"lethe_template_{uuid4().hex}"
    with ExitStack() as stack:
        if database_url is None:
            postgres = PostgresServer(server_folder, temporary=True, options=FAST)
            database_url = stack.enter_context(postgres).url
        if redis_url is None:
            redis_url = stack.enter_context(RedisServer(server_folder, temporary=True)).url
        found = Servers(database_url.replace("+psycopg", ""), redis_url, template)
        with found.administrator() as connection:
            connection.execute(f'CREATE DATABASE "{template}"')
        try:
            migrations.upgrade(found.url_of(template))
            yield found
        finally:
            with found.administrator() as connection:
                connection.execute(f'DROP DATABASE "{template}" WITH (FORCE)')


@pytest.fixture
def database_url(servers: Servers) -> Iterator[str]:
    """Give the URL of a migrated, empty database that only this test uses."""
    with servers.fresh_database(servers.template) as url:
        yield url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Give a `Database` on this test's own database."""
    database = Database(database_url)
    yield database
    database.dispose()


@pytest.fixture
def redis_url(servers: Servers) -> str:
    """Give the URL of Redis, emptied."""
    with Redis.from_url(servers.redis_url) as redis:
        redis.flushall()
    return servers.redis_url


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    """Give a folder below which datasets may lie."""
    root = tmp_path / "data"
    root.mkdir()
    return root


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a folder on a file system of 1 MiB of its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("this account may not mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def settings(database_url: str, redis_url: str, tmp_path: Path, data_root: Path) -> Settings:
    """Give the settings of a service on this test's servers and folders."""
    return Settings(
        data_dir=tmp_path / "lethe",
        database_url=SecretStr(database_url),
        redis_url=SecretStr(redis_url),
        data_roots=[str(data_root)],
        log_level="warning",
    )


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    """Give the whole service."""
    return create_app(settings)


MakeToken = Callable[..., str]


@pytest.fixture
def make_token(database: Database) -> MakeToken:
    """Give a function that adds a token with the named scopes and returns its secret."""

    def make(*scopes: str, name: str = "test", expires: datetime | None = None) -> str:
        with database.transaction() as session:
            return create_token(session, name, scopes or ("admin",), expires)[1]

    return make


@pytest.fixture
def client(app: FastAPI, make_token: MakeToken) -> Iterator[TestClient]:
    """Give an HTTP client of the service whose token may do everything."""
    headers = {"Authorization": f"Bearer {make_token('admin')}"}
    with TestClient(app, headers=headers, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def live_url(app: FastAPI) -> Iterator[str]:
    """Serve the service on a port of its own, by the server that production uses."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="on"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            pytest.fail("the service did not start")
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(20)
