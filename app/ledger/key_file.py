"""The file of the log's private key: Ed25519, PEM, without a passphrase. Nothing here needs the service."""

import contextlib
import os
import secrets
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_LARGEST_PEM = 2**16  # bytes
_MAKE_ONE = "Make one: openssl genpkey -algorithm ed25519 -out NEW"


class KeyFileError(Exception):
    """The signing key's file is unreadable, unsafe or no Ed25519 key; the sentence says how."""


def create_key(path: Path) -> None:
    """Make a key, readable by its owner alone: it is there whole or not at all, also after a kill.

    Where another process is first, its key stands.

    Raises:
        KeyFileError: the folder cannot be written.
    """
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(draft, pem)
        _publish(draft, path)
    except OSError as error:
        raise KeyFileError(
            f"The signing key {path} cannot be made: {error.strerror}. Expected a folder that this user "
            "may write, with room in it."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def _write(draft: Path, pem: bytes) -> None:
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())


def _publish(draft: Path, path: Path) -> None:
    """Give the finished file its name; where another process was first, its key stands."""
    try:
        os.link(draft, path)
    except FileExistsError:
        return
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_key(path: Path) -> Ed25519PrivateKey:
    """Return the key at ``path``.

    Raises:
        KeyFileError: the file is missing, unsafe, unreadable or holds another kind of key.
    """
    try:
        status = path.stat()
        pem = _content(path) if stat.S_ISREG(status.st_mode) else None
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read as a private key: {error.strerror}.") from error
    if pem is None:  # a folder, or a pipe that would give the key to one process only
        raise KeyFileError(f"{path} cannot be read as a private key: it is no file.")
    key = _parsed_key(path, pem)
    # As ssh does: a file of ours must be ours alone; one mounted by another user is their matter.
    if status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) & 0o077:
        raise KeyFileError(f"{path} can be read or written by others. Run: chmod 600 {path}")
    return key


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LARGEST_PEM)


def _parsed_key(path: Path, pem: bytes) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise KeyFileError(
            f"{path} cannot be read as a private key: it is encrypted, and nobody is there to type the "
            f"passphrase. Expected one without: openssl pkey -in {path} -out NEW"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyFileError(
            f"{path} cannot be read as a private key: expected an Ed25519 key in a PEM file "
            f"(-----BEGIN PRIVATE KEY-----). {_MAKE_ONE}"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path} holds no Ed25519 key, but one of another kind. {_MAKE_ONE}")
    return key
