"""Every error is a problem, whatever goes wrong."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import psycopg
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import BaseModel, Field
from sqlalchemy import create_engine, text

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


@pytest.mark.parametrize(
    ("path", "method", "allowed"),
    [
        ("/v1/models", "DELETE", "GET, POST"),
        ("/v1/models/mdl_1", "POST", "GET"),
        ("/v1/models/mdl_1/versions/ver_1/files/config.json", "PATCH", "GET, HEAD, PUT"),
        ("/v1/deletion-requests/req_1", "OPTIONS", "GET, DELETE"),
        ("/livez", "PUT", "GET"),
    ],
)
def test_wrong_method_names_every_method_of_the_path(
    client: TestClient, path: str, method: str, allowed: str
) -> None:
    answer = client.request(method, path)
    assert is_problem(answer, 405, "method-not-allowed")
    assert answer.headers["Allow"] == allowed
    assert f"one of {allowed}" in answer.json()["detail"]


def test_slash_at_the_end_is_not_found_and_not_redirected(client: TestClient) -> None:
    """A redirect would name a host and a scheme, and have the token sent there."""
    for method in ("GET", "POST"):
        answer = client.request(method, "/v1/models/", follow_redirects=False)
        assert is_problem(answer, 404, "not-found")
        assert "slash" in answer.json()["detail"]
    assert "slash" not in client.get("/").json()["detail"]


def test_error_does_not_repeat_what_was_sent(client: TestClient) -> None:
    answer = client.post("/v1/models", json={"name": ["my secret"], "family": 1})
    assert "my secret" not in answer.text


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = Field(ge=1)
    cat: "Cat | Dog | None" = Field(default=None, discriminator="kind")


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str | list[int]
    dog: int = 0


class Zoo(BaseModel):
    pets: list[Annotated[Cat | Dog, Field(discriminator="kind")]] = []
    by_name: dict[str, Cat | Dog] = {}
    chief: Annotated[Cat, Field()] | None = None


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"pets": [{"kind": "cat", "lives": 0}]}, {"#/pets/0/lives"}),
        ({"pets": [{"kind": "cat"}, {"kind": "dog"}]}, {"#/pets/0/lives", "#/pets/1/name"}),
        (
            {"pets": [{"kind": "cat", "lives": 9, "cat": {"kind": "cat", "lives": 0}}]},
            {"#/pets/0/cat/lives"},
        ),
        (
            {
                "pets": [
                    {"kind": "cat", "lives": 9, "cat": {"kind": "dog", "name": "a", "dog": "x"}}
                ]
            },
            {"#/pets/0/cat/dog"},
        ),
        ({"pets": [{"kind": "dog", "name": 1}]}, {"#/pets/0/name"}),
        ({"pets": [{"kind": "dog", "name": [1, "x"]}]}, {"#/pets/0/name", "#/pets/0/name/1"}),
        ({"pets": [{"kind": "fish"}, {}]}, {"#/pets/0/kind", "#/pets/1/kind"}),
        ({"pets": [1]}, {"#/pets/0"}),
        (
            {"by_name": {"a/b": {"kind": "dog", "name": 1}}},
            {"#/by_name/a~1b/name", "#/by_name/a~1b/kind", "#/by_name/a~1b/lives"},
        ),
        ({"chief": {"kind": "cat", "lives": "x"}}, {"#/chief/lives"}),
        ([], {"#"}),
        (None, {"#"}),
    ],
)
def test_pointer_leads_to_the_value_whatever_unions_stand_in_its_way(
    app: FastAPI, client: TestClient, body: Any, pointers: set[str]
) -> None:
    def take(zoo: Zoo) -> None:
        del zoo

    app.add_api_route("/zoo", take, methods=["POST"])
    answer = client.post("/zoo", json=body)
    assert is_problem(answer, 422, "invalid")
    assert {error["pointer"] for error in answer.json()["errors"]} == pointers


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"source": "training", "dataset_id": "ds_1", "seed": -1}, {"#/seed"}),
        ({"source": "training", "dataset_id": "ds_1", "training": {}, "seed": -1}, {"#/seed"}),
        ({"source": "training", "training": [], "sed": 1}, {"#/dataset_id", "#/training", "#/sed"}),
        ({"source": "upload", "recipe": {"seed": -1}}, {"#/recipe/seed"}),
        ({"source": "upload", "upload": {"seed": 1}}, {"#/upload"}),
        ({"source": "theft"}, {"#/source"}),
        ({"dataset_id": "ds_1"}, {"#/source"}),
        ({"source": {}}, {"#/source"}),
        ([], {"#"}),
    ],
)
def test_pointers_into_a_version_are_where_the_caller_wrote_them(
    client: TestClient, body: Any, pointers: set[str]
) -> None:
    answer = client.post("/v1/models/mdl_1/versions", json=body)
    assert is_problem(answer, 422, "invalid")
    assert {error["pointer"] for error in answer.json()["errors"]} == pointers


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


def test_transaction_that_another_one_got_ahead_of_is_503_with_a_reason_of_its_own(
    app: FastAPI, client: TestClient, database: Database, database_url: str
) -> None:
    with database.transaction() as session:
        session.execute(text("CREATE TABLE marks (mark int)"))
        session.execute(text("INSERT INTO marks VALUES (0)"))

    def late(session: SessionDep) -> None:
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        session.execute(text("SELECT mark FROM marks"))
        with psycopg.connect(database_url, autocommit=True) as other:
            other.execute("UPDATE marks SET mark = 1")
        session.execute(text("UPDATE marks SET mark = 2"))

    app.add_api_route("/late", late)
    answer = client.get("/late")
    assert is_problem(answer, 503, "unavailable")
    assert answer.headers["Retry-After"] == "1"
    assert "met another one" in answer.json()["detail"]
    assert "reached" not in answer.json()["detail"]


def test_deadlock_is_503_with_the_same_reason(app: FastAPI, client: TestClient) -> None:
    def die(session: SessionDep) -> None:
        session.execute(text("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40P01'; END $$"))

    app.add_api_route("/die", die)
    answer = client.get("/die")
    assert is_problem(answer, 503, "unavailable")
    assert "met another one" in answer.json()["detail"]


def test_lack_of_connections_is_503_and_says_so(
    app: FastAPI, client: TestClient, database_url: str
) -> None:
    small = Database(database_url)
    engine = create_engine(small.url, pool_size=1, max_overflow=0, pool_timeout=0.1)

    def starve() -> None:
        with engine.connect(), engine.connect():
            pass

    app.add_api_route("/starve", starve)
    answer = client.get("/starve")
    engine.dispose()
    assert is_problem(answer, 503, "unavailable")
    assert "connection" in answer.json()["detail"]
    assert answer.headers["Retry-After"] == "5"


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
