"""Every error is a problem, whatever goes wrong."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.core.db import Database, SessionDep
from app.core.errors import Invalid, NotFound
from app.core.problems import MEDIA_TYPE, problems


def is_problem(answer: Any, status: int, slug: str) -> bool:
    body = answer.json()
    assert answer.status_code == status, body
    assert answer.headers["Content-Type"] == MEDIA_TYPE
    assert body["status"] == status
    assert body["type"] == f"https://lethe.dev/problems/{slug}"
    assert body["title"]
    assert body["detail"].endswith(".")
    return True


def test_path_method_and_json_that_are_wrong_are_problems(client: TestClient) -> None:
    assert is_problem(client.get("/v1/nothing"), 404, "not-found")
    wrong_method = client.patch("/v1/models")
    assert is_problem(wrong_method, 405, "method-not-allowed")
    assert wrong_method.headers["Allow"]
    headers = {"Content-Type": "application/json"}
    assert is_problem(client.post("/v1/models", content=b"{", headers=headers), 422, "invalid")
    assert is_problem(client.post("/v1/models", content=b"\xff", headers=headers), 400, "malformed")
    assert is_problem(client.post("/v1/models", json=[]), 422, "invalid")


def test_error_does_not_repeat_what_was_sent(client: TestClient) -> None:
    answer = client.post("/v1/models", json={"name": ["my secret"], "family": 1})
    assert "my secret" not in answer.text


def test_nul_in_body_or_path_is_the_callers_error(client: TestClient) -> None:
    assert is_problem(client.get("/v1/models/a%00b"), 422, "invalid")
    body = {"name": "a", "family": "a\0", "task": "b"}
    assert client.post("/v1/models", json=body).status_code == 422


@pytest.mark.parametrize("path", ["/v1/models/" + "x" * 5000, "/v1/models/%F0%9F%92%A9/lineage"])
def test_ids_of_any_form_are_just_not_found(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_body_over_the_limit_is_413_with_and_without_its_length(
    client: TestClient, app: FastAPI, settings: Any
) -> None:
    big = b'{"name": "' + b"x" * settings.max_body_bytes + b'"}'
    headers = {"Content-Type": "application/json"}
    assert is_problem(client.post("/v1/models", content=big, headers=headers), 413, "too-large")
    parts = (big[start : start + 2**20] for start in range(0, len(big), 2**20))
    assert is_problem(client.post("/v1/models", content=parts, headers=headers), 413, "too-large")


def test_unexpected_error_is_500_with_the_request_id_and_no_detail(
    app: FastAPI, client: TestClient
) -> None:
    def fail() -> None:
        message = "a secret of the inside"
        raise RuntimeError(message)

    app.add_api_route("/fail", fail)
    answer = client.get("/fail", headers={"X-Request-Id": "mine"})
    assert is_problem(answer, 500, "internal")
    assert answer.json()["request_id"] == answer.headers["X-Request-Id"] == "mine"
    assert "secret" not in answer.text


def test_database_that_goes_away_is_503_and_comes_back(
    app: FastAPI, client: TestClient, database_url: str
) -> None:
    assert client.get("/v1/models").status_code == 200

    def cut(session: SessionDep) -> None:
        pid = session.scalar(text("SELECT pg_backend_pid()"))
        with psycopg.connect(database_url, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (pid,))
        session.execute(text("SELECT 1"))

    app.add_api_route("/cut", cut)
    answer = client.get("/cut")
    assert is_problem(answer, 503, "unavailable")
    assert answer.headers["Retry-After"] == "5"
    assert client.get("/v1/models").status_code == 200


def test_service_without_its_database_says_503(
    app: FastAPI, client: TestClient, make_token: Callable[..., str]
) -> None:
    secret = make_token("models:read")
    app.state.database = Database("postgresql://nobody@127.0.0.1:1/none?connect_timeout=1")
    answer = client.get("/v1/models", headers={"Authorization": f"Bearer {secret}"})
    assert is_problem(answer, 503, "unavailable")
    assert answer.headers["Retry-After"]


def test_errors_of_one_status_share_a_response() -> None:
    found = problems(NotFound, Invalid, NotFound)
    assert set(found) == {404, 422}
    assert found[404]["description"].count("not-found") == 1
