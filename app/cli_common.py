"""What the commands of ``lethe`` share. Heavy imports stand inside, so that ``--help`` is fast."""

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from app.core.settings import Settings

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Folder of private servers, storage and keys [LETHE_DATA_DIR, else ./lethe-data].",
    ),
]


def say(text: str = "") -> None:
    """Print a line of the command's result."""
    typer.echo(text)


def settings_with(**given: object) -> "Settings":
    """Return the settings of the environment, with the options that were given.

    Raises:
        SettingsError: one of them cannot be used.
    """
    from app.core.settings import read_settings

    return read_settings(
        **{name: value for name, value in given.items() if value not in (None, [])}
    )


@contextmanager
def open_session(data_dir: Path | None) -> "Iterator[Session]":
    """Open one transaction on the service's database."""
    from app.core.db import Database
    from app.launch import reachable_database

    with reachable_database(settings_with(data_dir=data_dir)) as url:
        database = Database(url, pool_size=1)
        try:
            with database.transaction() as session:
                yield session
        finally:
            database.dispose()
