"""Who may call what."""

import hashlib
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select, text

from app.auth import service
from app.auth.errors import UnknownScope
from app.auth.tables import Token
from app.core.db import Database

MakeToken = Callable[..., str]


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
    ("value", "reason"),
    [
        (None, None),
        ("", None),
        ("Basic abc", None),
        ("Bearer", None),
        ("bearer  ", None),
        ("Bearer x", "The token is none of this service's, which begin with lethe_."),
        ("Bearer lethe_wrong", "The token is unknown."),
    ],
)
def test_request_without_a_valid_token_is_401_and_says_why(
    app: FastAPI, value: str | None, reason: str | None
) -> None:
    headers = {} if value is None else {"Authorization": value}
    with TestClient(app, headers=headers) as client:
        refused(client.get("/v1/models"), reason)


def test_request_with_two_tokens_is_401_whichever_of_them_is_valid(
    app: FastAPI, make_token: MakeToken
) -> None:
    valid, other = f"Bearer {make_token('admin')}", "Bearer lethe_wrong"
    with TestClient(app) as client:
        for values in ((valid, other), (other, valid), (valid, valid), (valid, "")):
            headers = [("Authorization", value) for value in values]
            answer = client.get("/v1/models", headers=headers)
            refused(answer, "The request has 2 Authorization headers, not one.")


def refused(answer: httpx.Response, reason: str | None) -> None:
    """Check an answer to a token that is not accepted, by what RFC 6750 (section 3) asks for."""
    assert answer.status_code == 401
    assert answer.json()["type"].endswith("/unauthorized")
    assert "lethe token create" in answer.json()["detail"]
    challenge = answer.headers["WWW-Authenticate"]
    if reason is None:
        assert challenge == "Bearer"
        assert "No bearer token came" in answer.json()["detail"]
    else:
        assert challenge == f'Bearer error="invalid_token", error_description="{reason}"'
        assert answer.json()["detail"].startswith(reason)


def test_token_may_do_what_its_scopes_say_and_no_more(
    client: TestClient, make_token: MakeToken
) -> None:
    reader = {"Authorization": f"Bearer {make_token('models:read')}"}
    assert client.get("/v1/models", headers=reader).status_code == 200
    answer = client.post(
        "/v1/models",
        json={"name": "m", "family": "albef", "task": "retrieval"},
        headers=reader,
    )
    assert answer.status_code == 403
    assert answer.json()["type"].endswith("/missing-scope")
    assert "needs a token with the scope models:write; tok_" in answer.json()["detail"]
    assert answer.json()["detail"].endswith(" has models:read.")
    challenge = answer.headers["WWW-Authenticate"]
    assert challenge == 'Bearer error="insufficient_scope", scope="models:write"'


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/openapi.json"])
def test_health_and_documentation_need_no_token(client: TestClient, path: str) -> None:
    assert TestClient(client.app).get(path).status_code == 200


def ask(client: TestClient, secret: str) -> httpx.Response:
    bare = TestClient(client.app, headers={"Authorization": f"Bearer {secret}"})
    return bare.get("/v1/models")


def token_of(database: Database, digest: bytes) -> Token:
    with database.transaction() as session:
        return session.scalars(select(Token).where(Token.secret_sha256 == digest)).one()


def test_a_token_that_has_run_out_is_401_and_says_since_when(
    client: TestClient, make_token: MakeToken, database: Database
) -> None:
    secret = make_token("models:read", expires=datetime(2026, 3, 1, 12, tzinfo=UTC))
    token = token_of(database, hashlib.sha256(secret.encode()).digest())
    refused(ask(client, secret), f"The token {token.token_id} ran out at 2026-03-01T12:00:00Z.")


def test_a_token_that_runs_out_is_refused_from_that_moment(
    client: TestClient, make_token: MakeToken
) -> None:
    end = datetime.now(UTC) + timedelta(seconds=3)
    secret = make_token("models:read", expires=end)
    assert ask(client, secret).status_code == 200
    time.sleep(max(0.0, (end - datetime.now(UTC)).total_seconds()) + 0.05)
    assert ask(client, secret).status_code == 401  # though it was known a moment ago


def test_a_revoked_token_is_401_and_says_since_when(
    client: TestClient, app: FastAPI, make_token: MakeToken, database: Database
) -> None:
    secret = make_token("models:read", expires=datetime.now(UTC) + timedelta(hours=1))
    assert ask(client, secret).status_code == 200
    token = token_of(database, hashlib.sha256(secret.encode()).digest())
    with database.transaction() as session:
        assert service.revoke_token(session, token.token_id)
        assert not service.revoke_token(session, token.token_id)
        assert not service.revoke_token(session, "tok_none")
    app.state.callers._known.clear()  # as if five seconds had gone by
    ended = token_of(database, token.secret_sha256).revoked_time
    assert ended is not None
    when = f"{ended.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    refused(ask(client, secret), f"The token {token.token_id} was revoked at {when}.")


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
