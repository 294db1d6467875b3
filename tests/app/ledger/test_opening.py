"""A log keeps its key: one that is not there, or another one, keeps a process from starting."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import func, select, text

from app.core.db import Database
from app.core.settings import Settings
from app.core.settings_errors import SettingsError, StartError
from app.ledger import log, tables
from app.ledger.key_file import create_key
from app.ledger.opening import WrongKeyError, open_log, read_signer
from app.ledger.records import RequestWithdrawn
from app.ledger.tree_head import Signer


@pytest.fixture
def own(tmp_path: Path) -> Settings:
    """Give settings that name no key."""
    return Settings(data_dir=tmp_path / "lethe")


def _with_key(settings: Settings, path: Path) -> Settings:
    return settings.model_copy(update={"signing_key_file": path})


def _append(database: Database, signer: Signer | None = None) -> None:
    with database.transaction() as session:
        log.append(session, RequestWithdrawn(request_id="req_1"))
        if signer is not None:
            log.head(session, signer)


def _heads(database: Database) -> int:
    with database.transaction() as session:
        return session.scalars(select(func.count()).select_from(tables.TreeHead)).one()


@pytest.mark.parametrize("given", [False, True])
def test_the_key_of_an_empty_log_is_made_once_and_tied_to_it(
    database: Database, own: Settings, tmp_path: Path, given: bool
) -> None:
    settings = _with_key(own, tmp_path / "keys" / "mine.pem") if given else own
    made = open_log(database, settings)
    assert settings.signing_key.is_file()
    assert _heads(database) == 1  # of no leaves
    _append(database, made)
    assert open_log(database, settings).key_id == made.key_id
    assert _heads(database) == 2


def test_a_mistyped_key_file_makes_no_key_and_is_named_with_the_key_that_is_wanted(
    database: Database, own: Settings, tmp_path: Path
) -> None:
    first = open_log(database, own)
    mistyped = _with_key(own, tmp_path / "kyes" / "ledger.pem")
    with pytest.raises(WrongKeyError) as refused:
        open_log(database, mistyped)
    assert f"signed with the key {first.key_id}, and LETHE_SIGNING_KEY_FILE (" in str(refused.value)
    assert f"({mistyped.signing_key}) is not there. A log keeps the key" in str(refused.value)
    assert not mistyped.signing_key.parent.exists()


def test_a_lost_key_is_not_replaced_either(database: Database, own: Settings) -> None:
    open_log(database, own)
    own.signing_key.unlink()
    with pytest.raises(WrongKeyError, match=rf"the signing key {own.signing_key} is not there"):
        open_log(database, own)
    assert not own.signing_key.exists()


def test_a_log_whose_heads_nobody_signed_yet_gets_no_new_key_but_takes_its_own(
    database: Database, own: Settings
) -> None:
    _append(database)
    with pytest.raises(WrongKeyError, match=r"has 1 leaves, and the signing key .* is not there"):
        open_log(database, own)
    create_key(own.signing_key)
    made = Signer.load(own.signing_key, own.ledger_origin)
    assert open_log(database, own).key_id == made.key_id
    assert _heads(database) == 1


def test_another_key_is_refused_with_the_ids_of_both(
    database: Database, own: Settings, tmp_path: Path
) -> None:
    first = open_log(database, own)
    create_key(tmp_path / "other.pem")
    other = Signer.load(tmp_path / "other.pem", own.ledger_origin)
    with pytest.raises(WrongKeyError) as refused:
        open_log(database, _with_key(own, tmp_path / "other.pem"))
    said = str(refused.value)
    assert f"({own.ledger_origin}) is signed with the key {first.key_id}" in said
    assert f"other.pem) holds the key {other.key_id}" in said
    assert "Give this process that key" in said
    assert _heads(database) == 1


def test_of_two_hosts_that_begin_a_log_at_once_one_is_refused(
    database: Database, tmp_path: Path
) -> None:
    def begin(host: int) -> str:
        try:
            return open_log(database, Settings(data_dir=tmp_path / str(host))).key_id
        except WrongKeyError:
            return "refused"

    with ThreadPoolExecutor(4) as pool:
        outcomes = sorted(pool.map(begin, range(4)))
    assert outcomes.count("refused") == 3
    assert _heads(database) == 1


def test_another_name_of_the_log_is_refused_with_its_own(database: Database, own: Settings) -> None:
    open_log(database, own)
    with pytest.raises(WrongKeyError, match=rf"set LETHE_LEDGER_ORIGIN={own.ledger_origin}\."):
        open_log(database, own.model_copy(update={"ledger_origin": "other.test/log"}))


def test_a_head_that_is_none_is_not_signed_over(database: Database, own: Settings) -> None:
    open_log(database, own)
    with database.transaction() as session:
        session.execute(text("ALTER TABLE ledger_tree_heads DISABLE TRIGGER USER"))
        session.execute(text("GRANT UPDATE ON ledger_tree_heads TO CURRENT_USER"))
        session.execute(text("UPDATE ledger_tree_heads SET note = 'nonsense'"))
    with pytest.raises(StartError, match=r"cannot be read: .* Run `lethe verify-log`"):
        open_log(database, own)


@pytest.fixture
def bare_database(servers: object) -> Iterator[Database]:
    """Give a database without tables."""
    with servers.fresh_database() as url:  # type: ignore[attr-defined]
        database = Database(url)
        yield database
        database.dispose()


def test_a_database_without_tables_is_said_and_no_key_made(
    bare_database: Database, own: Settings
) -> None:
    with pytest.raises(StartError, match="run `lethe migrate` once"):
        open_log(bare_database, own)
    assert not own.signing_key.exists()


@pytest.mark.parametrize(
    ("found", "said"), [("0001", "run `lethe migrate` once"), ("9999", "a newer version of Lethe")]
)
def test_tables_of_another_version_are_said_and_no_key_made(
    database: Database, own: Settings, found: str, said: str
) -> None:
    with database.transaction() as session:
        session.execute(text("UPDATE alembic_version SET version_num = :found"), {"found": found})
    with pytest.raises(StartError, match=said):
        open_log(database, own)
    assert not own.signing_key.exists()


def test_a_key_is_read_before_anything_is_made_where_there_is_one(
    own: Settings, tmp_path: Path
) -> None:
    assert read_signer(own) is None
    assert read_signer(_with_key(own, tmp_path / "none")) is None
    with pytest.raises(SettingsError, match="LETHE_SIGNING_KEY_FILE: /etc/passwd cannot be read"):
        read_signer(_with_key(own, Path("/etc/passwd")))
    own.signing_key.mkdir(parents=True)
    with pytest.raises(SettingsError, match=rf"^{own.signing_key} cannot be read .* is no file"):
        read_signer(own)
