"""Request ids, logs, health, and what the process loads."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import SecretStr
from redis import Redis
from sqlalchemy import select, text

from app.core import logs
from app.core.db import Database, SessionDep
from app.core.settings import Settings
from app.core.settings_errors import MissingSettingError
from app.ledger.opening import WrongKeyError, open_log
from app.ledger.tables import TreeHead
from app.ledger.tree_head import signed_by
from app.main import create_app


@pytest.fixture
def logging_restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def test_request_id_is_taken_over_or_made(client: TestClient) -> None:
    given = client.get("/livez", headers={"X-Request-Id": "abc-1.2_3"})
    assert given.headers["X-Request-Id"] == "abc-1.2_3"
    for odd in ("a b", "x" * 65, "<script>"):
        made = client.get("/livez", headers={"X-Request-Id": odd}).headers["X-Request-Id"]
        assert made.startswith("req_")


@pytest.mark.usefixtures("logging_restored")
def test_json_logs_carry_ids_and_neither_tokens_nor_bodies(
    settings: Settings, make_token: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = make_token("admin")
    app = create_app(settings.model_copy(update={"log_format": "json", "log_level": "info"}))
    with TestClient(app) as client:
        client.post(
            "/v1/models?cursor=pair-17",
            json={"name": "pair-18", "family": "x", "task": "y"},
            headers={"Authorization": f"Bearer {secret}", "X-Request-Id": "mine"},
        )
        with logs.job_context("job_1"):
            logging.getLogger("library").warning("from a library")
    lines = capsys.readouterr().err.splitlines()
    entries = [json.loads(line) for line in lines]
    (request,) = [entry for entry in entries if entry["event"] == "request"]
    assert request["request_id"] == "mine"
    assert (request["method"], request["path"], request["status"]) == ("POST", "/v1/models", 422)
    (library,) = [entry for entry in entries if entry["event"] == "from a library"]
    assert (library["job_id"], library["level"]) == ("job_1", "warning")
    for leaked in (secret, "pair-17", "pair-18"):
        assert not any(leaked in line for line in lines)


@pytest.mark.usefixtures("logging_restored")
@pytest.mark.parametrize("form", ["json", "human"])
def test_traceback_of_an_unexpected_error_is_logged_without_local_values(
    settings: Settings, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    app = create_app(settings.model_copy(update={"log_format": form, "log_level": "info"}))

    def fail() -> None:
        pair_id = "pair-19"
        raise RuntimeError(len(pair_id))

    app.add_api_route("/fail", fail)
    with TestClient(app, raise_server_exceptions=False) as client:
        client.get("/fail")
    err = capsys.readouterr().err
    assert "RuntimeError" in err
    assert "pair-19" not in err


@pytest.mark.usefixtures("logging_restored")
def test_error_of_the_database_is_logged_without_the_values_of_the_row(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    app = create_app(settings.model_copy(update={"log_format": "json", "log_level": "info"}))

    def fail(session: SessionDep) -> None:
        session.execute(text("CREATE TEMP TABLE marks (name text UNIQUE)"))
        for _ in range(2):
            session.execute(text("INSERT INTO marks VALUES (:name)"), {"name": "pair-20"})

    app.add_api_route("/fail", fail)
    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.get("/fail").status_code == 500
    err = capsys.readouterr().err
    assert "UniqueViolation" in err
    assert "pair-20" not in err


def test_live_and_ready_service_says_so(client: TestClient) -> None:
    assert client.get("/livez").json() == {"status": "ok"}
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["checks"] == {"database": "ok", "broker": "ok", "storage": "ok"}


def test_ready_names_each_thing_that_failed(app: FastAPI, client: TestClient) -> None:
    database, redis = app.state.database, app.state.redis
    app.state.database = Database("postgresql://nobody@127.0.0.1:1/none?connect_timeout=1")
    app.state.redis = Redis(port=1)
    answer = client.get("/readyz")
    assert answer.status_code == 503
    checks = answer.json()["checks"]
    assert checks["database"].startswith("failed: ")
    assert checks["broker"] == "failed: ConnectionError"
    assert checks["storage"] == "ok"
    app.state.database, app.state.redis = database, redis
    redis_is_back = client.get("/readyz")
    assert redis_is_back.status_code == 200


def test_service_without_urls_says_which_settings_it_needs(settings: Settings) -> None:
    for missing in ("database_url", "redis_url"):
        with pytest.raises(MissingSettingError, match="LETHE_DATABASE_URL"):
            create_app(settings.model_copy(update={missing: None}))


def test_the_service_makes_no_second_key_for_a_log_that_has_one(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    first = open_log(database, Settings(data_dir=tmp_path / "first"))
    with pytest.raises(WrongKeyError, match=f"signed with the key {first.key_id}"):
        create_app(settings)
    assert not settings.signing_key.exists()


def test_the_service_signs_with_the_key_that_it_ties_an_empty_log_to(
    database: Database, settings: Settings
) -> None:
    app = create_app(settings)
    assert app.state.signer.key_id == open_log(database, settings).key_id
    with database.transaction() as session:
        (note,) = session.scalars(select(TreeHead.note))
    assert signed_by(note) == (settings.ledger_origin, [app.state.signer.key_id])


def test_secrets_are_not_shown_with_the_settings(settings: Settings) -> None:
    hidden = Settings(database_url=SecretStr("postgresql://u:hunter2@h/d"))
    assert "hunter2" not in repr(hidden)


def test_importing_the_service_loads_neither_torch_nor_other_heavy_libraries() -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'torch_geometric', 'engine'):\n"
        "    sys.modules[name] = None\n"
        "import app.main\n"
        "heavy = {'numpy', 'pyarrow', 'safetensors', 'sklearn'} & set(sys.modules)\n"
        "print(sorted(heavy))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
