"""Reads the files that a verification is given. Nothing here needs the service."""

from pathlib import Path
from typing import Any

from app.ledger.form import CertificateError, parsed
from app.ledger.tree_head import NoteError, load_public_key, signed_by

# Members of a problem object (RFC 9457) that every error answer of the service has.
_PROBLEM = {"type", "title", "status", "detail"}
_MOST_SHOWN = 500  # characters of what a file says


def read_bundle(path: Path) -> Any:
    """Return the certificate in a JSON file, as parsed.

    Raises:
        CertificateError: the file cannot be read, is no JSON, is ambiguous, or is an error answer.
    """
    return parsed(_read(path, "certificate"), str(path))


def read_public_key(path: Path) -> str:
    """Return the text of a PEM file.

    Raises:
        CertificateError: the file cannot be read, is an error answer, or has no public key of a log.
    """
    text = _read(path, "public key")
    try:
        load_public_key(text)
    except NoteError as error:
        raise CertificateError(f"{path} is no log's public key. {error}") from error
    return text


def read_head(path: Path) -> str:
    """Return the signed note in a file: a note, or the JSON of ``/v1/ledger/head``.

    Raises:
        CertificateError: the file cannot be read, or is not what it should be.
    """
    note = _read(path, "tree head")
    if note.lstrip().startswith("{"):
        note = parsed(note, str(path)).get("note")
    if not isinstance(note, str):
        raise CertificateError(f"{path} is no tree head: it is JSON without the member 'note'.")
    try:
        signed_by(note)
    except NoteError as error:
        raise CertificateError(f"{path} is no tree head. {error}") from error
    return note


def _read(path: Path, what: str) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CertificateError(f"{path} cannot be read: {error}.") from error
    _refuse_problem(path, text, what)
    return text


def _refuse_problem(path: Path, text: str, what: str) -> None:
    """Refuse an error answer of the service, which a download keeps as the file unless told not to."""
    if not text.lstrip().startswith("{"):
        return
    try:
        answer = parsed(text, what)
    except CertificateError:
        return  # whoever wants JSON says what is wrong with it
    if answer.keys() >= _PROBLEM:
        raise CertificateError(
            f"{path} is no {what} but an error answer of the service, {_shown(answer['status'])} "
            f"({_shown(answer['title'])}): {_shown(answer['detail'])} Fetch the {what} again; with "
            "`curl --fail` an error is not kept as the file."
        )


def _shown(value: Any) -> str:
    """Return what a file says in a form that a terminal takes for text, and nothing else."""
    text = "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in str(value))
    return text[:_MOST_SHOWN]
