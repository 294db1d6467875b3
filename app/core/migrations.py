"""Brings the database to the newest tables; the migrations themselves lie in ``migrations/``."""

from importlib.util import find_spec
from pathlib import Path

from alembic import command
from alembic.config import Config


class MigrationsMissingError(RuntimeError):
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
    """Apply every migration up to ``revision``; does nothing where they are applied."""
    command.upgrade(configuration(database_url), revision)
