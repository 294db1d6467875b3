"""Migrations: up, down, up again, and the tables that the code expects."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic import command
from sqlalchemy import create_engine, inspect, text

import migrations as package
from app.core import migrations

VERSIONS = sorted((Path(package.__file__).parent / "versions").glob("0*.py"))


@pytest.fixture
def empty_url(servers: Any) -> Iterator[str]:
    with servers.fresh_database() as url:
        yield url


def structure(url: str) -> dict[str, Any]:
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        tables = inspect(connection).get_table_names()
        query = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
        indexes = list(connection.scalars(text(query)))
        query = "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1"
        triggers = list(connection.scalars(text(query)))
        query = "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1"
        functions = list(connection.scalars(text(query)))
    engine.dispose()
    return {
        "tables": sorted(set(tables) - {"alembic_version"}),
        "indexes": [index for index in indexes if "alembic_version" not in index],
        "triggers": triggers,
        "functions": functions,
    }


def test_up_down_and_up_again_gives_the_same_structure(empty_url: str) -> None:
    migrations.upgrade(empty_url)
    first = structure(empty_url)
    assert {"pairs", "versions", "jobs", "ledger_leaves"} <= set(first["tables"])
    assert first["triggers"]
    command.downgrade(migrations.configuration(empty_url), "base")
    assert structure(empty_url) == {"tables": [], "indexes": [], "triggers": [], "functions": []}
    migrations.upgrade(empty_url)
    assert structure(empty_url) == first


def test_each_step_can_be_taken_back_by_itself(empty_url: str) -> None:
    config = migrations.configuration(empty_url)
    for _ in VERSIONS:
        command.upgrade(config, "+1")
        before = structure(empty_url)
        command.downgrade(config, "-1")
        command.upgrade(config, "+1")
        assert structure(empty_url) == before


def test_tables_of_the_code_and_of_the_migrations_do_not_drift(database_url: str) -> None:
    command.check(migrations.configuration(database_url))


def test_upgrade_of_an_upgraded_database_changes_nothing(database_url: str) -> None:
    before = structure(database_url)
    migrations.upgrade(database_url)
    assert structure(database_url) == before


def test_two_processes_that_migrate_at_once_do_not_meet(empty_url: str) -> None:
    import subprocess
    import sys

    code = "import sys; from app.core import migrations; migrations.upgrade(sys.argv[1])"

    def run(_: int) -> int:
        command_line = [sys.executable, "-c", code, empty_url]
        return subprocess.run(command_line, check=False, timeout=120).returncode

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, range(2))) == [0, 0]


@pytest.mark.parametrize("path", VERSIONS, ids=lambda path: path.stem)
def test_each_migration_gives_up_soon_when_a_table_is_locked(path: Path) -> None:
    source = path.read_text("utf-8")
    for function in ("upgrade", "downgrade"):
        body = re.search(rf"def {function}\(\).*?\n(.*?)(?=\ndef |\Z)", source, re.DOTALL)
        assert body is not None
        assert "SET LOCAL lock_timeout" in body[1].split("op.", 2)[1]


def test_migration_waits_only_seconds_for_a_lock(database_url: str) -> None:
    with psycopg.connect(database_url) as holder:
        holder.execute("LOCK TABLE ledger_leaves IN ACCESS SHARE MODE")
        with pytest.raises(Exception, match="lock timeout"):
            command.downgrade(migrations.configuration(database_url), "base")


def test_missing_url_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from app.core import settings

    monkeypatch.delenv("LETHE_DATABASE_URL", raising=False)
    settings.get_settings.cache_clear()
    config = migrations.configuration("unused")
    del config.attributes["database_url"]
    with pytest.raises(SystemExit, match="LETHE_DATABASE_URL"):
        command.upgrade(config, "head")
    settings.get_settings.cache_clear()
