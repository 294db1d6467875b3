"""The commit comes before the response, and only when the route succeeded."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from fastapi import FastAPI, Response
from fastapi.testclient import TestClient
from pydantic import BaseModel
from sqlalchemy import text

from app.core import db as db_module
from app.core.db import Database, SessionDep, after_commit
from app.core.errors import Invalid
from app.core.idempotency import OnceDep
from app.core.problems import install


class Mark(BaseModel):
    """What a route of these tests answers."""

    name: str


@pytest.fixture
def small_app(database: Database) -> FastAPI:
    with database.transaction() as session:
        session.execute(text("CREATE TABLE marks (name text PRIMARY KEY)"))
    app = FastAPI()
    app.state.database = database
    install(app)

    @app.post("/marks/{name}", status_code=201)
    def add(name: str, session: SessionDep) -> dict[str, str]:
        session.execute(text("INSERT INTO marks VALUES (:name)"), {"name": name})
        if name == "refused":
            raise Invalid("refused")
        return {"name": name}

    return app


def marks(database: Database) -> list[str]:
    with database.transaction() as session:
        return list(session.scalars(text("SELECT name FROM marks ORDER BY name")))


def test_row_is_visible_to_others_before_the_first_byte_of_the_response(
    small_app: FastAPI, database: Database
) -> None:
    seen: list[list[str]] = []

    async def watched(scope: dict, receive: object, send: object) -> None:
        async def watch(message: dict) -> None:
            if message["type"] == "http.response.start":
                seen.append(marks(database))
            await send(message)  # type: ignore[operator]

        await small_app(scope, receive, watch)  # type: ignore[arg-type]

    with TestClient(watched) as client:
        assert client.post("/marks/a").status_code == 201
    assert seen == [["a"]]


def test_request_scoped_session_would_commit_too_late(
    small_app: FastAPI, database: Database
) -> None:
    """Shows that the test above can fail: the framework's default scope commits afterwards."""
    from typing import Annotated

    from fastapi import Depends
    from sqlalchemy.orm import Session

    late = Annotated[Session, Depends(db_module._request_session, scope="request")]

    def add_late(name: str, session: late) -> dict[str, str]:  # type: ignore[valid-type]
        session.execute(text("INSERT INTO marks VALUES (:name)"), {"name": name})
        return {"name": name}

    small_app.add_api_route("/late/{name}", add_late, methods=["POST"], status_code=201)
    seen: list[list[str]] = []

    async def watched(scope: dict, receive: object, send: object) -> None:
        async def watch(message: dict) -> None:
            if message["type"] == "http.response.start":
                seen.append(marks(database))
            await send(message)  # type: ignore[operator]

        await small_app(scope, receive, watch)  # type: ignore[arg-type]

    with TestClient(watched) as client:
        assert client.post("/late/b").status_code == 201
    assert seen == [[]]


def test_the_answer_of_a_post_is_committed_when_its_route_ends_and_hooks_run_once(
    small_app: FastAPI, database: Database
) -> None:
    seen: list[list[str]] = []
    ran: list[str] = []

    def add(name: str, session: SessionDep, once: OnceDep) -> Response:
        session.execute(text("INSERT INTO marks VALUES (:name)"), {"name": name})
        after_commit(session, lambda: ran.append(name))
        answer = once.answer(201, Mark(name=name))
        seen.append(marks(database))
        return answer

    small_app.add_api_route("/once/{name}", add, methods=["POST"], status_code=201)
    with TestClient(small_app) as client:
        assert client.post("/once/a").json() == {"name": "a"}
    assert (seen, ran) == ([["a"]], ["a"])


def test_requests_of_all_threads_at_once_give_their_connections_back(
    small_app: FastAPI, database_url: str
) -> None:
    small = Database(database_url, pool_size=1)
    small_app.state.database = small
    names = [f"mark-{number}" for number in range(60)]
    with TestClient(small_app) as client, ThreadPoolExecutor(len(names)) as pool:
        answers = list(pool.map(lambda name: client.post(f"/marks/{name}"), names))
    assert [answer.status_code for answer in answers] == [201] * len(names)
    assert small.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
    assert marks(small) == sorted(names)
    small.dispose()


def test_problem_rolls_the_transaction_back(small_app: FastAPI, database: Database) -> None:
    with TestClient(small_app) as client:
        assert client.post("/marks/refused").status_code == 422
    assert marks(database) == []


def test_failing_commit_is_an_error_and_not_a_success(
    small_app: FastAPI, database: Database
) -> None:
    with database.transaction() as session:
        session.execute(text("CREATE TABLE parents (name text PRIMARY KEY)"))
        session.execute(
            text(
                "ALTER TABLE marks ADD CONSTRAINT parent FOREIGN KEY (name) "
                "REFERENCES parents DEFERRABLE INITIALLY DEFERRED"
            )
        )
    with TestClient(small_app, raise_server_exceptions=False) as client:
        assert client.post("/marks/orphan").status_code == 500
    assert marks(database) == []


def test_hooks_run_once_after_the_commit_and_never_after_a_rollback(database: Database) -> None:
    ran: list[str] = []
    with database.transaction() as session:
        after_commit(session, lambda: ran.append("kept"))
        assert ran == []
    assert ran == ["kept"]

    def refused() -> None:
        with database.transaction() as session:
            after_commit(session, lambda: ran.append("lost"))
            raise Invalid("no")

    with pytest.raises(Invalid):
        refused()
    assert ran == ["kept"]


def test_transactions_of_several_threads_do_not_share_a_session(database: Database) -> None:
    pids: list[int] = []
    together = threading.Barrier(4)

    def work() -> None:
        with database.transaction() as session:
            together.wait(10)
            pids.append(session.scalar(text("SELECT pg_backend_pid()")) or 0)
            together.wait(10)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(pids)) == 4
