"""How Alembic reaches the database, and which tables it compares with."""

from alembic import context
from sqlalchemy import create_engine, pool

import app.audit.tables
import app.auth.tables
import app.datasets.tables
import app.deletions.tables
import app.jobs.tables
import app.ledger.tables
import app.registry.tables  # noqa: F401 - importing a noun's tables adds them to the metadata
from app.core.settings import get_settings
from app.core.tables import Table


def _url() -> str:
    given = context.config.attributes.get("database_url")
    setting = get_settings().database_url
    if given is None and setting is None:
        message = "Set LETHE_DATABASE_URL to the PostgreSQL database that is to be migrated."
        raise SystemExit(message)
    url = str(given) if given is not None or setting is None else setting.get_secret_value()
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


def _migrate() -> None:
    engine = create_engine(_url(), poolclass=pool.NullPool)
    with engine.connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=Table.metadata,
            compare_server_default=True,
        )
        with context.begin_transaction():
            # Two processes that start at once migrate one after the other.
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7239510274)")
            context.run_migrations()


if context.is_offline_mode():
    message = "Migrations need a database: run them without --sql."
    raise SystemExit(message)
_migrate()
