"""Who may call what."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.auth import service
from app.auth.errors import UnknownScope
from app.core.db import Database

MakeToken = Callable[..., str]


def get(client: TestClient, secret: str | None, path: str = "/v1/models") -> int:
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
    bare = TestClient(client.app, headers=headers)
    return bare.get(path).status_code


def test_secret_is_long_random_and_kept_only_as_a_digest(
    make_token: MakeToken, database: Database
) -> None:
    first, second = make_token("admin"), make_token("admin")
    assert first != second
    assert first.startswith("lethe_")
    assert len(first) == len("lethe_") + 43
    with database.transaction() as session:
        rows = session.execute(text("SELECT tokens::text FROM tokens")).scalars().all()
    assert not any(secret[6:] in row for row in rows for secret in (first, second))


@pytest.mark.parametrize(
    "value", [None, "", "Basic abc", "Bearer", "Bearer x", "Bearer lethe_wrong", "bearer  "]
)
def test_request_without_a_valid_token_is_401(app: FastAPI, value: str | None) -> None:
    headers = {} if value is None else {"Authorization": value}
    with TestClient(app, headers=headers) as client:
        answer = client.get("/v1/models")
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json()["type"].endswith("/unauthorized")


def test_token_may_do_what_its_scopes_say_and_no_more(
    client: TestClient, make_token: MakeToken
) -> None:
    reader = {"Authorization": f"Bearer {make_token('models:read')}"}
    assert client.get("/v1/models", headers=reader).status_code == 200
    refused = client.post(
        "/v1/models",
        json={"name": "m", "family": "albef", "task": "retrieval"},
        headers=reader,
    )
    assert refused.status_code == 403
    assert refused.json()["type"].endswith("/missing-scope")
    assert "models:write" in refused.json()["detail"]


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/openapi.json"])
def test_health_and_documentation_need_no_token(client: TestClient, path: str) -> None:
    assert get(client, None, path) == 200


def test_token_ends_at_its_time_and_when_it_is_revoked(
    client: TestClient, app: FastAPI, make_token: MakeToken, database: Database
) -> None:
    now = datetime.now(UTC)
    assert get(client, make_token("models:read", expires=now - timedelta(seconds=1))) == 401
    secret = make_token("models:read", expires=now + timedelta(hours=1))
    assert get(client, secret) == 200
    with database.transaction() as session:
        caller = service.verify(session, secret)
        assert caller is not None
        assert service.revoke_token(session, caller.token_id)
        assert not service.revoke_token(session, caller.token_id)
        assert not service.revoke_token(session, "tok_none")
    app.state.callers.seconds = 0.0
    app.state.callers._known.clear()  # as if five seconds had gone by
    assert get(client, secret) == 401


def test_known_token_needs_no_query_for_a_few_seconds_only() -> None:
    cache = service.CallerCache(seconds=60)
    caller = service.Caller("tok_1", "a", frozenset())
    cache.put(b"digest", caller)
    assert cache.get(b"digest") is caller
    assert cache.get(b"other") is None
    stale = service.CallerCache(seconds=-1)
    stale.put(b"digest", caller)
    assert stale.get(b"digest") is None


def test_cache_of_tokens_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_MOST_CACHED", 3)
    cache = service.CallerCache()
    for index in range(10):
        cache.put(bytes([index]), service.Caller("t", "n", frozenset()))
    assert len(cache._known) <= 3


@pytest.mark.parametrize("scopes", [[], ["models:read", "root"]])
def test_token_needs_scopes_that_exist(database: Database, scopes: list[str]) -> None:
    with pytest.raises(UnknownScope, match="models:read"), database.transaction() as session:
        service.create_token(session, "x", scopes)
    with pytest.raises(UnknownScope):
        service.require("root")
