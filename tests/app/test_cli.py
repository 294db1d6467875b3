"""The command line, run as a user runs it."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import text

from app.auth.service import verify
from app.core.db import Database
from app.ledger import log
from app.ledger.records import RequestWithdrawn
from app.ledger.tree_head import Signer
from tests.terminal import environment


def _lethe(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=environment(**settings),
        cwd="/",
    )


def test_help_names_every_command() -> None:
    done = _lethe("--help")
    assert done.returncode == 0
    for command in ("serve", "demo", "verify", "verify-log", "token", "migrate", "api", "worker"):
        assert re.search(rf"\b{command}\b", done.stdout), command


def test_help_loads_no_heavy_library() -> None:
    code = "import app.cli, sys; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", f"import json; {code}"],
        check=True,
        capture_output=True,
        text=True,
        env=environment(),
    )
    loaded = set(json.loads(done.stdout))
    assert not loaded & {"fastapi", "sqlalchemy", "celery", "pydantic", "psycopg", "torch"}


def test_a_token_is_made_listed_and_revoked(database: Database, database_url: str) -> None:
    scopes = ("--scope", "deletions:write", "--scope", "deletions:read")
    made = _lethe("token", "create", "Acme", *scopes, LETHE_DATABASE_URL=database_url)
    assert made.returncode == 0, made.stderr
    secret = made.stdout.strip()
    token_id = made.stderr.split(":")[0]
    with database.transaction() as session:
        caller = verify(session, secret)
    assert caller is not None
    assert caller.scopes == {"deletions:read", "deletions:write"}

    listed = _lethe("token", "list", LETHE_DATABASE_URL=database_url).stdout
    assert re.search(rf"{token_id}\s+active\s+Acme\s+deletions:read,deletions:write", listed)
    assert secret not in listed

    assert _lethe("token", "revoke", token_id, LETHE_DATABASE_URL=database_url).returncode == 0
    with database.transaction() as session:
        assert verify(session, secret) is None
    again = _lethe("token", "revoke", token_id, LETHE_DATABASE_URL=database_url)
    assert again.returncode == 1
    assert "No active token" in again.stderr


def test_an_unknown_scope_is_refused_with_those_that_exist(database_url: str) -> None:
    done = _lethe("token", "create", "x", "--scope", "all", LETHE_DATABASE_URL=database_url)
    assert done.returncode == 2
    assert "deletions:write" in done.stderr


def test_migrate_makes_the_tables_and_can_be_repeated(servers: Any) -> None:
    with servers.fresh_database() as url:
        for _ in range(2):
            done = _lethe("migrate", LETHE_DATABASE_URL=url)
            assert done.returncode == 0, done.stderr
        with psycopg.connect(url) as link:
            assert link.execute("SELECT count(*) FROM jobs").fetchone() == (0,)


def test_verify_says_what_is_wrong_with_a_file_that_is_no_certificate(tmp_path: Path) -> None:
    paper = tmp_path / "paper.json"
    paper.write_text("not json")
    done = _lethe("verify", str(paper), "--key", str(paper))
    assert done.returncode == 2
    assert "NOT VERIFIED" in done.stderr


def test_verify_log_says_whether_the_log_holds_and_what_was_changed(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    key, kept = tmp_path / "ledger.pem", tmp_path / "head.txt"
    settings = {
        "LETHE_DATABASE_URL": database_url,
        "LETHE_SIGNING_KEY_FILE": str(key),
        "LETHE_LEDGER_ORIGIN": "lethe.test/log",
    }
    missing = _lethe("verify-log", **settings)
    assert missing.returncode == 2
    assert "ledger.pem is not there" in missing.stderr
    assert not key.exists()

    signer = Signer.load_or_create(key, "lethe.test/log")
    with database.transaction() as session:
        log.append(session, RequestWithdrawn(request_id="req_1"))
        kept.write_text(log.head(session, signer).note)
    whole = _lethe("verify-log", "--head", str(kept), **settings)
    assert whole.returncode == 0, whole.stderr
    assert "VERIFIED: the log holds. Recomputed from its 1 leaves" in whole.stdout

    with database.transaction() as session:
        session.execute(text("ALTER TABLE ledger_leaves DISABLE TRIGGER USER"))
        session.execute(text("GRANT UPDATE ON ledger_leaves TO CURRENT_USER"))
        session.execute(text("UPDATE ledger_leaves SET body = '{}'"))
    changed = _lethe("verify-log", **settings)
    assert changed.returncode == 1
    assert changed.stdout.startswith("NOT VERIFIED")
    assert "- Leaf 0 was changed" in changed.stdout
