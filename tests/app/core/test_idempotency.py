"""A repeated POST with the same key does nothing twice."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.core.db import Database

BODY = {"name": "search", "family": "albef", "task": "retrieval"}


def post(client: TestClient, body: dict[str, Any], key: str | None, **headers: str) -> Any:
    keyed = {} if key is None else {"Idempotency-Key": key}
    return client.post("/v1/models", json=body, headers={**keyed, **headers})


def test_repetition_gets_the_same_answer_and_a_mark(client: TestClient) -> None:
    first, again = post(client, BODY, "k"), post(client, BODY, "k")
    assert first.status_code == again.status_code == 201
    assert first.content == again.content
    assert first.headers["Location"] == again.headers["Location"]
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len(client.get("/v1/models").json()["items"]) == 1


def test_key_with_another_body_path_or_method_is_refused(client: TestClient) -> None:
    post(client, BODY, "k")
    other = post(client, {**BODY, "name": "other"}, "k")
    assert other.status_code == 422
    assert other.json()["type"].endswith("/idempotency-key-reused")
    body = {"name": "d", "modality": "image", "root": "/"}
    elsewhere = client.post("/v1/datasets", json=body, headers={"Idempotency-Key": "k"})
    assert elsewhere.json()["type"].endswith("/idempotency-key-reused")


def test_keys_of_two_callers_do_not_meet(
    client: TestClient, make_token: Callable[..., str]
) -> None:
    post(client, BODY, "k")
    headers = {"Authorization": f"Bearer {make_token('models:write')}"}
    second = post(client, {**BODY, "name": "theirs"}, "k", **headers)
    assert (second.status_code, second.json()["name"]) == (201, "theirs")


def test_failed_request_does_not_use_its_key_up(client: TestClient) -> None:
    assert post(client, {**BODY, "family": "none"}, "k").status_code == 422
    assert post(client, BODY, "k").status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "tab\t"])
def test_key_that_cannot_be_one_is_refused(client: TestClient, key: str) -> None:
    answer = post(client, BODY, key)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] == "idempotency-key"


def test_of_many_at_once_one_makes_the_change(client: TestClient, database: Database) -> None:
    together = threading.Barrier(8)

    def send(_: int) -> Any:
        together.wait(10)
        return post(client, BODY, "k")

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(8)))
    made = [answer for answer in answers if answer.status_code == 201]
    refused = [answer for answer in answers if answer.status_code == 409]
    assert len(made) + len(refused) == 8
    assert len({answer.text for answer in made}) == 1
    assert sum("Idempotency-Replayed" not in answer.headers for answer in made) == 1
    for answer in refused:
        assert answer.json()["type"].endswith("/idempotency-key-in-use")
        assert answer.headers["Retry-After"] == "1"
    with database.transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM models")) == 1


def test_key_of_a_request_that_still_runs_is_a_conflict(
    client: TestClient, database: Database, database_url: str
) -> None:
    with database.transaction() as session:
        token_id = session.scalar(text("SELECT token_id FROM tokens"))
    with psycopg.connect(database_url) as running:
        lock = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"
        running.execute(lock, (f"{token_id}\nk",))
        assert post(client, BODY, "k").status_code == 409
    assert post(client, BODY, "k").status_code == 201


def test_key_is_free_again_after_a_day_and_old_ones_are_removed(
    client: TestClient, database: Database
) -> None:
    post(client, BODY, "k")
    post(client, {**BODY, "name": "old"}, "old")
    with database.transaction() as session:
        session.execute(
            text("UPDATE idempotency_keys SET created_time = now() - interval '25 hours'")
        )
    second = post(client, {**BODY, "name": "second"}, "k")
    assert second.status_code == 201
    with database.transaction() as session:
        assert list(session.scalars(text("SELECT key FROM idempotency_keys"))) == ["k"]


def test_answer_is_kept_only_with_the_change(
    client: TestClient, database: Database, make_dataset: Callable[..., Any], data_root: Path
) -> None:
    body = {"name": "d", "modality": "image", "root": str(data_root)}
    headers = {"Idempotency-Key": "k"}
    with database.transaction() as session:
        session.execute(
            text(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
                " 'BEGIN RAISE EXCEPTION ''no''; END'"
            )
        )
        session.execute(
            text(
                "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON datasets DEFERRABLE INITIALLY"
                " DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()"
            )
        )
    assert client.post("/v1/datasets", json=body, headers=headers).status_code == 500
    with database.transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM idempotency_keys")) == 0
        session.execute(text("DROP TRIGGER late ON datasets"))
    assert client.post("/v1/datasets", json=body, headers=headers).status_code == 201
