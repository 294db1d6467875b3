"""Opens the log for signing: with the key that it was begun with, or a new one where it is empty.

A log keeps its key, since certificates that were given out verify with no other. The signed head
that a first start leaves in the database, also of the empty log, ties the key to the log: a process
that is given another one does not start.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import select
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from app.core.db import Database
from app.core.paths import is_there
from app.core.settings import Settings
from app.core.settings_errors import SettingsError, StartError, UnreachableError
from app.ledger import log, tables
from app.ledger.errors import LogCorrupt
from app.ledger.key_file import KeyFileError, create_key
from app.ledger.tree_head import NoteError, Signer, signed_by

_KEEPS = (
    "A log keeps the key that it was begun with, as its certificates verify with no other: no new key is "
    "made. Give this process that key (a copy, on each host), or the database that belongs to this one."
)


class WrongKeyError(SettingsError):
    """The signing key, or the name of the log, is not what the log in the database was signed with."""


def read_signer(settings: Settings) -> Signer | None:
    """Return the signer with the key that is there; None where there is none yet.

    Raises:
        SettingsError: the file is no key that can be used.
    """
    return _signer(settings) if is_there(settings.signing_key) else None


def open_log(database: Database, settings: Settings) -> Signer:
    """Return the log's signer; the key is made only where the log is empty, and then tied to it.

    Raises:
        SettingsError: the file is no key that can be used.
        WrongKeyError: the log was begun with another key or name, or its key is not there.
        MigrationError: the tables are not those of this version of Lethe.
        UnreachableError: the database went away.
    """
    try:
        with database.transaction() as session:
            return _opened(session, settings)
    except (OperationalError, InterfaceError) as error:
        reason = str(error.orig).partition("\n")[0]
        raise UnreachableError(
            f"The database cannot be used: {reason}. Look at its messages, or correct LETHE_DATABASE_URL."
        ) from None  # what libpq says of a malformed URL may show the password


def _opened(session: Session, settings: Settings) -> Signer:
    from app.core.migrations import require_current  # here, since Alembic is slow to load

    require_current(session)
    note = _newest_note(session)
    if not is_there(settings.signing_key):
        _require_empty(session, settings, note)
        with _named(settings):
            create_key(settings.signing_key)
    signer = _signer(settings)
    if note is None:
        try:
            note = log.head(session, signer).note
        except LogCorrupt:  # another process was first, with another key
            note = _newest_note(session) or ""
    _require_same(settings, signer, note)
    return signer


def _newest_note(session: Session) -> str | None:
    heads = tables.TreeHead
    return session.scalar(select(heads.note).order_by(heads.size.desc()).limit(1))


def _signer(settings: Settings) -> Signer:
    with _named(settings):
        return Signer.load(settings.signing_key, settings.ledger_origin)


@contextmanager
def _named(settings: Settings) -> Iterator[None]:
    """Have a `KeyFileError` of the block name the setting that gives the key's file."""
    try:
        yield
    except KeyFileError as error:
        named = "LETHE_SIGNING_KEY_FILE: " if settings.signing_key_file else ""
        raise SettingsError(f"{named}{error}") from error


def _require_empty(session: Session, settings: Settings, note: str | None) -> None:
    if note is not None:
        origin, ids = _said(note)
        raise WrongKeyError(
            f"The log in the database ({origin}) is signed with the key {ids}, and {_place(settings)} is "
            f"not there. {_KEEPS}"
        )
    leaves = log.size(session)
    if leaves:
        raise WrongKeyError(
            f"The log in the database has {leaves} leaves, and {_place(settings)} is not there. {_KEEPS}"
        )


def _require_same(settings: Settings, signer: Signer, note: str) -> None:
    origin, ids = _said(note)
    if origin != signer.origin:
        raise WrongKeyError(
            f"The log in the database is named {origin}, and LETHE_LEDGER_ORIGIN is {signer.origin}. A "
            f"log keeps its name: set LETHE_LEDGER_ORIGIN={origin}."
        )
    if signer.key_id not in ids.split(", "):
        raise WrongKeyError(
            f"The log in the database ({origin}) is signed with the key {ids}, and {_place(settings)} "
            f"holds the key {signer.key_id}. {_KEEPS}"
        )


def _said(note: str) -> tuple[str, str]:
    """Return the name of the log and the ids of the keys that a stored head bears."""
    try:
        origin, ids = signed_by(note)
    except NoteError as error:
        raise StartError(
            f"The newest tree head in the database cannot be read: {error} Run `lethe verify-log`, and "
            "compare the database with a backup."
        ) from error
    return origin, ", ".join(ids)


def _place(settings: Settings) -> str:
    """Return in words where the key is looked for."""
    if settings.signing_key_file is None:
        return f"the signing key {settings.signing_key}"
    return f"LETHE_SIGNING_KEY_FILE ({settings.signing_key_file})"
