"""Signed tree heads: C2SP signed notes (tlog-checkpoint) with Ed25519, and the key that signs them.

A note is the text ``origin``, ``size``, base64 root, an empty line, and a signature line
``— name base64(key hash || signature)``. Nothing here needs the service.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

# Public names of the package, which it re-exports without saying so to type checkers.
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]

from app.ledger.key_file import read_key

_ED25519 = b"\x01"
_DASH = "\u2014"
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


class NoteError(ValueError):
    """A signed note is malformed or not signed by the key; the sentence says which."""


@dataclass(frozen=True)
class TreeHead:
    """The signed statement that the first ``size`` leaves of log ``origin`` have root ``root``."""

    origin: str
    size: int
    root: bytes
    note: str


def _check_origin(origin: str) -> None:
    if not origin or "+" in origin or any(character.isspace() for character in origin):
        raise NoteError(
            f"The name of a log is not empty and has neither spaces nor '+'; {origin!r} came."
        )


def _raw(public_key: Ed25519PublicKey) -> bytes:
    return public_key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def key_id_of(origin: str, public_key: Ed25519PublicKey) -> str:
    """Return what the key of log ``origin`` is named by, everywhere: 8 hexadecimal digits.

    They are the key hash of C2SP signed-note, which signature lines of tree heads begin with. A name
    tells keys apart by mistake, not by malice: it is too short to trust a key by.
    """
    named = origin.encode() + b"\n" + _ED25519 + _raw(public_key)
    return hashlib.sha256(named).digest()[:4].hex()


def load_public_key(pem: str) -> Ed25519PublicKey:
    """Return the Ed25519 public key in ``pem``.

    Raises:
        NoteError: it is not one.
    """
    try:
        key = serialization.load_pem_public_key(pem.encode())
    except ValueError as error:
        raise NoteError("The public key is not a PEM file (-----BEGIN PUBLIC KEY-----).") from error
    if not isinstance(key, Ed25519PublicKey):
        raise NoteError("The public key is no Ed25519 key, which the log signs with.")
    return key


def dsse_key(public_key: Ed25519PublicKey, key_id: str | None = None) -> SSlibKey:
    """Return the key in the form that checks DSSE envelopes which name it ``key_id``.

    Without one it has the name that certificates of early versions give it, the library's own.
    """
    return SSlibKey.from_crypto(public_key, keyid=key_id)


class Signer:
    """Signs tree heads and certificates of the log named ``origin``."""

    def __init__(self, private_key: Ed25519PrivateKey, origin: str) -> None:
        _check_origin(origin)
        self.origin = origin
        self._private_key = private_key
        self._public_key = private_key.public_key()

    @classmethod
    def load(cls, path: Path, origin: str) -> Self:
        """Read the key at ``path``.

        Raises:
            KeyFileError: the file is missing, unsafe, unreadable or holds another kind of key.
        """
        return cls(read_key(path), origin)

    @property
    def key_id(self) -> str:
        """What the key is named by; see `key_id_of`."""
        return key_id_of(self.origin, self._public_key)

    @property
    def public_key_pem(self) -> str:
        """The public key, as PEM (SubjectPublicKeyInfo)."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self._public_key.public_bytes(serialization.Encoding.PEM, form).decode()

    def sign(self, size: int, root: bytes) -> TreeHead:
        """Sign the tree head of ``size`` leaves with root ``root``."""
        body = f"{self.origin}\n{size}\n{base64.b64encode(root).decode()}\n"
        key_hash = bytes.fromhex(self.key_id)
        signature = base64.b64encode(key_hash + self._private_key.sign(body.encode())).decode()
        note = f"{body}\n{_DASH} {self.origin} {signature}\n"
        return TreeHead(self.origin, size, root, note)

    def dsse_signer(self) -> CryptoSigner:
        """Return the signer of DSSE envelopes, with the same key."""
        return CryptoSigner(self._private_key, dsse_key(self._public_key, self.key_id))


def decode_base64(data: str, what: str) -> bytes:
    """Decode standard base64, refusing every spelling but the canonical one.

    Raises:
        NoteError: ``data`` is no canonical base64; ``what`` names it in the sentence.
    """
    try:
        decoded = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise NoteError(f"{what} is no base64.") from error
    if base64.b64encode(decoded).decode() != data:
        raise NoteError(f"{what} is no canonical base64.")
    return decoded


def verify_note(note: str, public_key_pem: str, origin: str | None = None) -> TreeHead:
    """Check the signature of ``note`` and return what it says.

    Args:
        note: the whole signed note.
        public_key_pem: the log's Ed25519 public key.
        origin: the name that the log must have; any when None.

    Raises:
        NoteError: malformed, of another log, or not signed by the key.
    """
    head = _parse(note)
    if origin is not None and head.origin != origin:
        raise NoteError(
            f"The tree head is of log {head.origin!r}; that of {origin!r} was expected."
        )
    public_key = load_public_key(public_key_pem)
    body, signatures = note.split("\n\n", 1)
    key_id = key_id_of(head.origin, public_key)
    for line in signatures.removesuffix("\n").split("\n"):
        blob = _signature(line, head.origin)
        if blob is not None and blob[:4].hex() == key_id:
            return _checked(head, public_key, blob[4:], body + "\n")
    others = ", ".join(signed_by(note)[1]) or "another name only"
    raise NoteError(f"The tree head bears no signature by this key ({key_id}), but by {others}.")


def signed_by(note: str) -> tuple[str, list[str]]:
    """Return the log that ``note`` names and the ids of the keys that signed as it, unchecked.

    Raises:
        NoteError: malformed.
    """
    origin = _parse(note).origin
    lines = note.split("\n\n", 1)[1].removesuffix("\n").split("\n")
    blobs = [_signature(line, origin) for line in lines]
    return origin, [blob[:4].hex() for blob in blobs if blob is not None]


def _checked(head: TreeHead, key: Ed25519PublicKey, signature: bytes, body: str) -> TreeHead:
    try:
        key.verify(signature, body.encode())
    except InvalidSignature as error:
        raise NoteError("The signature of the tree head is not valid.") from error
    return head


def _signature(line: str, origin: str) -> bytes | None:
    """Return key hash and signature of a line by ``origin``; None where another name signed."""
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != _DASH:
        raise NoteError("A signature line of the tree head is malformed.")
    return decode_base64(parts[2], "A signature of the tree head") if parts[1] == origin else None


def _parse(note: str) -> TreeHead:
    body, separator, signatures = note.partition("\n\n")
    lines = body.split("\n")
    if not separator or not signatures.endswith("\n") or len(lines) != 3:
        raise NoteError(
            "A tree head has the lines name, size, root, an empty one, and a signature."
        )
    origin, size, root = lines
    _check_origin(origin)
    if not _SIZE.fullmatch(size):
        raise NoteError("The size in the tree head is no plain decimal number.")
    decoded = decode_base64(root, "The root in the tree head")
    if len(decoded) != 32:
        raise NoteError("The root in the tree head has not 32 bytes.")
    return TreeHead(origin, int(size), decoded, note)
