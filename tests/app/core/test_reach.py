"""Servers that cannot be reached, or not by us, in a sentence without the password."""

import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from app.core.reach import require_broker, require_database, require_storage
from app.core.settings_errors import UnreachableError


def _said(look: Callable[[str], None], url: str) -> str:
    with pytest.raises(UnreachableError) as refused:
        look(url)
    said = str(refused.value)
    assert "\n" not in said
    assert "hunter2" not in said
    return said


def test_servers_that_answer_are_taken(database_url: str, redis_url: str) -> None:
    require_database(database_url)
    require_database(database_url.replace("postgresql://", "postgresql+psycopg://"))
    require_broker(redis_url)


@pytest.mark.parametrize(
    "scheme", ["redis://:hunter2@127.0.0.1:1/0", "redis://u:hunter2@127.0.0.1:1"]
)
def test_a_broker_that_is_not_there_is_named_by_setting_and_host(scheme: str) -> None:
    assert _said(require_broker, scheme) == (
        "Redis cannot be reached at 127.0.0.1:1: Connection refused. Start it, or correct LETHE_REDIS_URL."
    )


def test_a_broker_with_another_password_says_so(redis_url: str) -> None:
    parts = urlsplit(redis_url)
    said = _said(require_broker, f"redis://:hunter2@{parts.hostname}:{parts.port}/0")
    assert said.startswith(f"Redis cannot be reached at {parts.hostname}:{parts.port}: ")
    assert "password" in said


def test_a_socket_that_is_not_there_is_named_by_its_path() -> None:
    said = _said(require_broker, "unix://:hunter2@/nowhere/redis.sock?db=1")
    assert said.startswith("Redis cannot be reached at /nowhere/redis.sock: ")


def test_what_is_no_redis_or_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.core.reach._SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        said = _said(require_broker, f"redis://:hunter2@127.0.0.1:{port}/0")
    assert f"127.0.0.1:{port}: Timeout" in said


def test_a_database_that_is_not_there_is_named() -> None:
    said = _said(require_database, "postgresql://u:hunter2@127.0.0.1:1/d")
    assert said.startswith("The database cannot be reached: ")
    assert "port 1 failed: Connection refused. Start it, or correct LETHE_DATABASE_URL." in said


def test_a_database_that_does_not_exist_is_named(servers: Any) -> None:
    said = _said(require_database, servers.url_of("nothing_here"))
    assert 'database "nothing_here" does not exist' in said


def test_a_password_in_a_url_that_libpq_cannot_read_is_not_shown() -> None:
    said = _said(require_database, f"postgresql://u:{quote('a')}%zzhunter2@127.0.0.1:1/d")
    assert "its URL is malformed" in said


def test_a_storage_that_cannot_be_written_is_named_without_its_password() -> None:
    require_storage("memory://lethe")
    require_storage("file:///nowhere")  # a folder is looked at where it is made
    pytest.importorskip("aiohttp", reason="fsspec needs it for http")
    said = _said(require_storage, "http://u:hunter2@127.0.0.1:1/x")
    assert said.startswith(
        "The storage http://127.0.0.1:1/x cannot be written: ClientConnectorError."
    )
    assert "LETHE_STORAGE_URL" in said
    said = _said(require_storage, "http://127.0.0.1:1/x")
    assert "ClientConnectorError: Cannot connect to host 127.0.0.1:1" in said
