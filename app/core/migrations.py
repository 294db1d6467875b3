"""Brings the database to the newest tables; the migrations themselves lie in ``migrations/``."""

from importlib.util import find_spec
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from psycopg.errors import LockNotAvailable
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.core.settings_errors import StartError


class MigrationError(StartError):
    """The database cannot be brought to the newest tables; the text says why."""


class MigrationsMissingError(StartError):
    """The package with the migrations is not installed beside the service."""


def configuration(database_url: str) -> Config:
    """Return Alembic's configuration for the database at ``database_url``.

    Raises:
        MigrationsMissingError: the ``migrations`` package cannot be found.
    """
    found = find_spec("migrations")
    if found is None or found.origin is None:
        raise MigrationsMissingError(
            "The package 'migrations' is missing; install lethe as a whole."
        )
    config = Config()
    config.set_main_option("script_location", str(Path(found.origin).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["database_url"] = database_url
    return config


def upgrade(database_url: str, revision: str = "head") -> None:
    """Apply every migration up to ``revision``; does nothing where they are applied.

    Raises:
        MigrationsMissingError: the ``migrations`` package cannot be found.
        MigrationError: the database is of a newer version, or refuses a change.
    """
    try:
        command.upgrade(configuration(database_url), revision)
    except CommandError as error:
        raise MigrationError(
            f"The tables of the database are not those of this version of Lethe or an older one ({error}). "
            "Run the version that made them, or a newer one."
        ) from error
    except DBAPIError as error:
        reason = str(error.orig).partition("\n")[0]
        advice = "Expected a user who may make tables in it."
        if isinstance(error.orig, LockNotAvailable):
            advice = "They are in use: run it again when fewer requests are under way."
        raise MigrationError(
            f"The tables of the database cannot be brought to this version of Lethe: {reason}. {advice}"
        ) from error


def require_current(session: Session) -> None:
    """Refuse a database whose tables are not those of this version of Lethe.

    Raises:
        MigrationError: they are older, newer, or not there.
        MigrationsMissingError: the ``migrations`` package cannot be found.
    """
    found = MigrationContext.configure(session.connection()).get_current_revision()
    known = [
        script.revision
        for script in ScriptDirectory.from_config(configuration("")).walk_revisions()
    ]
    if found == known[0]:
        return
    if found is None or found in known:
        raise MigrationError(
            "The database does not have the tables of this version of Lethe: run `lethe migrate` once, "
            "with the same settings."
        )
    raise MigrationError(
        f"The tables of the database are of a newer version of Lethe (migration {found}; {known[0]} is the "
        "newest one known here). Run that version, or a newer one."
    )
