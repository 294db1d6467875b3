"""The command line, run as a user runs it."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy import text

from app.auth.service import create_token, revoke_token, verify
from app.core.db import Database
from app.core.settings import Settings
from app.ledger import certificate, log
from app.ledger.certificate import CertificateData
from app.ledger.explain import EXIT_STATUS
from app.ledger.key_file import create_key
from app.ledger.opening import open_log
from app.ledger.records import RequestWithdrawn
from app.ledger.tree_head import Signer
from tests.terminal import environment


def _lethe(
    *arguments: str, module: str = "app.cli", **settings: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=environment(**settings),
        cwd="/",
        timeout=120,
    )


def test_help_names_every_command() -> None:
    done = _lethe("--help")
    assert done.returncode == 0
    commands = "serve demo convert verify verify-log token migrate api worker bench"
    for command in commands.split():
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


def test_the_list_says_of_each_token_whether_it_works(
    database: Database, database_url: str
) -> None:
    def days(number: int) -> datetime:
        return datetime.now(UTC) + timedelta(days=number)

    with database.transaction() as session:
        for name, expires in {
            "open": None,
            "later": days(9),
            "over": days(-2),
            "ended": None,
        }.items():
            token, _ = create_token(session, name, ["admin"], expires)
        revoke_token(session, token.token_id)
    listed = _lethe("token", "list", LETHE_DATABASE_URL=database_url).stdout
    head, *lines = listed.splitlines()
    assert head.split() == ["ID", "STATE", "NAME", "SCOPES"]
    where = head.index("STATE")
    states = {line.split()[-2]: line[where : head.index("NAME")].strip() for line in lines}
    assert states == {
        "open": "active",
        "later": f"active until {days(9):%F}",
        "over": f"expired {days(-2):%F}",
        "ended": f"revoked {days(0):%F}",
    }


READERS = {
    "list": ("token", "list"),
    "create": ("token", "create", "x", "--scope", "admin"),
    "revoke": ("token", "revoke", "tok_1"),
    "verify-log": ("verify-log",),
    "migrate": ("migrate",),
}


@pytest.mark.parametrize("command", READERS.values(), ids=READERS)
def test_only_serve_and_demo_make_a_data_directory(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    mistyped = tmp_path / "mistyped"
    done = _lethe(*command, "--data-dir", str(mistyped))
    assert done.returncode == 2
    assert done.stderr.startswith(f"No Lethe has its database in {mistyped}.")
    assert "lethe serve --data-dir" in done.stderr
    assert not list(tmp_path.iterdir())
    mistyped.mkdir()
    assert _lethe(*command, LETHE_DATA_DIR=str(mistyped)).returncode == 2
    assert not list(mistyped.iterdir())


SERVERS = {"api": ("api",), "worker": ("worker",), "serve": ("serve",)}
URLS = {"LETHE_DATABASE_URL": "postgresql://u@127.0.0.1:1/d", "LETHE_REDIS_URL": "redis://h"}


def _one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize("command", [*READERS, *SERVERS])
def test_a_data_directory_that_is_no_folder_ends_every_command_with_a_sentence(
    command: str, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.touch()
    urls = URLS if command in {"api", "worker"} else {}
    for folder, reason in ((file, "it is a file"), (file / "below", "Not a directory")):
        settings = {"LETHE_DATA_DIR": str(folder), **urls}
        said = _one_line(_lethe(*(READERS | SERVERS)[command], **settings))
        assert said.startswith(f"The data directory {folder} cannot be used ({reason})")


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """Give a folder that not even root may write."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    if os.geteuid() != 0:
        yield folder
        return
    command = ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("this account may not mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("command", SERVERS)
def test_a_data_directory_that_may_not_be_written_ends_what_serves_with_a_sentence(
    command: str, closed: Path
) -> None:
    urls = {} if command == "serve" else URLS
    for folder in (closed, closed / "new"):
        said = _one_line(_lethe(*SERVERS[command], LETHE_DATA_DIR=str(folder), **urls))
        assert said.startswith(f"The data directory {folder} cannot be used (")


def test_a_database_below_a_folder_that_may_not_be_written_is_said_in_one_line(
    closed: Path,
) -> None:
    if os.geteuid() == 0:
        subprocess.run(["mount", "-o", "remount,rw", str(closed)], check=True)
    else:
        closed.chmod(0o755)
    (closed / "postgres").mkdir()
    (closed / "postgres" / "PG_VERSION").write_text("18\n")
    if os.geteuid() == 0:
        subprocess.run(["mount", "-o", "remount,ro", str(closed)], check=True)
    else:
        closed.chmod(0o555)
    said = _one_line(_lethe("token", "list", "--data-dir", str(closed)))
    assert said.startswith(f"The data directory {closed} cannot be used (Permission denied)")


@pytest.mark.parametrize(
    ("module", "command"),
    [
        *(("app.cli", command) for command in (*SERVERS.values(), *READERS.values())),
        ("celery", ("-A", "worker.celery_app", "worker")),
    ],
    ids=lambda part: part if isinstance(part, str) else " ".join(part),
)
def test_a_wrong_variable_ends_every_command_with_a_line_each(
    module: str, command: tuple[str, ...]
) -> None:
    done = _lethe(
        *command,
        module=module,
        LETHE_PORT="abc",
        LETHE_LEASE_SECONDS="-1",
        LETHE_DATABASE_URL="mysql://u:hunter2@h/d",
    )
    assert done.returncode == 2, done.stderr
    named = [line.partition(": expected")[0] for line in done.stderr.splitlines()]
    assert named == ["LETHE_DATABASE_URL", "LETHE_PORT", "LETHE_LEASE_SECONDS"]
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("app.cli", ("api",)),
        ("app.cli", ("worker",)),
        ("celery", ("-A", "worker.celery_app", "worker")),
    ],
    ids=["api", "worker", "celery"],
)
def test_api_and_worker_say_which_urls_they_need(module: str, command: tuple[str, ...]) -> None:
    said = _one_line(_lethe(*command, module=module, LETHE_REDIS_URL="redis://h"))
    assert said.startswith("Set LETHE_DATABASE_URL and LETHE_REDIS_URL")


def test_a_database_that_is_away_is_said_in_one_line() -> None:
    url = "postgresql://u:hunter2@127.0.0.1:1/d"
    done = _lethe("token", "list", LETHE_DATABASE_URL=url)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("The database cannot be reached: ")
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "status", "said"),
    [
        (
            "SIGNING_KEY_FILE",
            "/etc/passwd",
            2,
            "LETHE_SIGNING_KEY_FILE: /etc/passwd cannot be read",
        ),
        (
            "REDIS_URL",
            "redis://:hunter2@127.0.0.1:1/0",
            1,
            "Redis cannot be reached at 127.0.0.1:1:",
        ),
        (
            "DATABASE_URL",
            "postgresql://u:hunter2@127.0.0.1:1/d",
            1,
            "The database cannot be reached",
        ),
        ("DEVICE", "cuda:99", 2, "LETHE_DEVICE is cuda:99, and torch finds"),
    ],
)
def test_serve_says_what_it_cannot_work_with_before_it_makes_anything(
    tmp_path: Path, name: str, value: str, status: int, said: str
) -> None:
    settings = {"LETHE_DATA_DIR": str(tmp_path / "lethe"), f"LETHE_{name}": value}
    done = _lethe("serve", "--port", "0", **settings)
    assert (done.returncode, done.stdout) == (status, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(said)
    assert "hunter2" not in line
    assert not list(tmp_path.iterdir())


API = ("app.cli", "api")
UVICORN = ("uvicorn", "--factory", "app.main:create_app", "--port", "0")
WORKER = ("app.cli", "worker")


@pytest.mark.parametrize("start", [UVICORN, WORKER], ids=["uvicorn", "worker"])
def test_what_is_given_another_key_than_the_log_has_does_not_start(
    database: Database, database_url: str, redis_url: str, tmp_path: Path, start: tuple[str, ...]
) -> None:
    first = open_log(database, Settings(data_dir=tmp_path / "first"))
    urls = {"LETHE_DATABASE_URL": database_url, "LETHE_REDIS_URL": redis_url}
    module, *arguments = start
    done = _lethe(*arguments, module=module, LETHE_DATA_DIR=str(tmp_path / "second"), **urls)
    assert f"is signed with the key {first.key_id}, and the signing key" in _one_line(done)
    assert not list((tmp_path / "second" / "keys").iterdir())


@pytest.mark.parametrize("start", [API, WORKER], ids=["api", "worker"])
def test_what_has_no_database_does_not_start(tmp_path: Path, start: tuple[str, ...]) -> None:
    module, *arguments = start
    done = _lethe(*arguments, module=module, LETHE_DATA_DIR=str(tmp_path), **URLS)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("The database cannot be reached: ")


def test_a_database_of_a_newer_version_is_said_in_one_line(
    database: Database, database_url: str
) -> None:
    with database.transaction() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'from_the_future'"))
    done = _lethe("migrate", LETHE_DATABASE_URL=database_url)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "from_the_future" in line
    assert line.endswith("Run the version that made them, or a newer one.")


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--data-root", "/no/such/folder", "The data root /no/such/folder is not there"),
        ("--port", "70000", "--port"),
    ],
)
def test_serve_refuses_what_cannot_work_before_it_makes_anything(
    tmp_path: Path, option: str, value: str, said: str
) -> None:
    data_dir = tmp_path / "lethe"
    done = _lethe("serve", "--data-dir", str(data_dir), option, value)
    assert done.returncode == 2
    assert said in done.stderr
    assert not data_dir.exists()


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


@pytest.fixture
def kept_files(database: Database, tmp_path: Path) -> Path:
    """Give a folder with a certificate, a forged one, the key, and heads of before and after."""
    own = Settings(data_dir=tmp_path / "own")
    signer = open_log(database, own)
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    times = dict.fromkeys(("received_time", "completed_time", "deadline"), moment)
    words = dict.fromkeys(("scope", "objective", "method", "update"), "all")
    data = CertificateData(
        request_id="req_1",
        dataset_id="ds_1",
        guarantee="not_needed",
        limitations=[],
        pair_count=1,
        pairs_commitment="ef" * 32,
        versions=[],
        **times,
        **words,
    )
    with database.transaction() as session:
        older = log.head(session, signer).note
        bundle = certificate.issue(session, signer, data)
        log.append(session, RequestWithdrawn(request_id="req_2"))
        newer = log.head(session, signer).note
        since = certificate.refreshed(session, signer, bundle, 2)
    forged = {**bundle, "ledger": since["ledger"] | {"leafIndex": 1}}
    files = {"older.txt": older, "newer.txt": newer, "key.pem": signer.public_key_pem}
    for name, value in {"certificate": bundle, "since": since, "forged": forged}.items():
        files[f"{name}.json"] = json.dumps(value)
    for name, text_ in files.items():
        (tmp_path / name).write_text(text_)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "head", "status", "headline"),
    [
        ("certificate", None, 0, "VERIFIED: "),
        ("certificate", "older", 0, "VERIFIED: "),
        ("since", "newer", 0, "VERIFIED: "),
        (
            "certificate",
            "newer",
            3,
            "PARTLY VERIFIED: the certificate itself is signed by this key",
        ),
        ("forged", None, 1, "NOT VERIFIED: do not rely on this certificate."),
        ("forged", "newer", 1, "NOT VERIFIED: do not rely on this certificate."),
    ],
)
def test_verify_ends_with_a_status_for_each_outcome(
    kept_files: Path, name: str, head: str | None, status: int, headline: str
) -> None:
    key, paper = kept_files / "key.pem", kept_files / f"{name}.json"
    options = () if head is None else ("--head", str(kept_files / f"{head}.txt"))
    done = _lethe("verify", str(paper), "--key", str(key), *options)
    assert done.returncode == status, done.stdout
    assert done.stdout.startswith(headline)
    asked = "GET /v1/audit/requests/req_1/certificate?since=2"
    assert (asked in " ".join(done.stdout.split())) == (status == 3)


def test_verify_says_that_a_file_is_an_error_answer_of_the_service(kept_files: Path) -> None:
    problem = {"type": "t", "title": "Not found", "status": 404, "detail": "No such request."}
    paper = kept_files / "problem.json"
    paper.write_text(json.dumps(problem))
    said = _one_line(_lethe("verify", str(paper), "--key", str(kept_files / "key.pem")))
    answer = "but an error answer of the service, 404 (Not found): No such request. Fetch the"
    assert said.startswith(f"NOT VERIFIED: {paper} is no certificate {answer}")


def test_verify_names_a_file_that_is_no_public_key_as_the_fault(kept_files: Path) -> None:
    private = Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    key = kept_files / "private.pem"
    for content, fault in ((private, "is not a PEM file"), (b"", "is not a PEM file")):
        key.write_bytes(content)
        done = _lethe("verify", str(kept_files / "certificate.json"), "--key", str(key))
        said = " ".join((done.stdout + done.stderr).split())
        assert done.returncode == 2, said
        assert f"{key} is no log's public key. The public key {fault}" in said
        assert "do not rely" not in said


def test_verify_says_in_its_help_with_which_status_it_ends() -> None:
    said = " ".join(_lethe("verify", "--help").stdout.split())
    for status, words in EXIT_STATUS.items():
        assert f"{words} if " in said, status
    assert "2 if a file or an option is not what it should be" in said


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

    create_key(key)
    signer = Signer.load(key, "lethe.test/log")
    with database.transaction() as session:
        log.append(session, RequestWithdrawn(request_id="req_1"))
        kept.write_text(log.head(session, signer).note)
    garbage = tmp_path / "garbage.txt"
    garbage.write_text("no tree head\n")
    mistaken = _lethe("verify-log", "--head", str(garbage), **settings)
    assert mistaken.returncode == 2
    said = " ".join(mistaken.stderr.split())
    assert f"{garbage} is no tree head. A tree head has the lines name, size" in said
    assert "the log was changed" not in said
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
