"""Signed tree heads and the key that signs them."""

import base64
import re

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from hypothesis import given
from hypothesis import strategies as st

from app.ledger.tree_head import (
    NoteError,
    Signer,
    key_id_of,
    load_public_key,
    signed_by,
    verify_note,
)

ORIGIN = "lethe.test/log"
SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))), ORIGIN)
ROOT = bytes(range(32))


def test_a_note_has_the_form_of_c2sp_tlog_checkpoint() -> None:
    note = SIGNER.sign(17, ROOT).note
    origin, size, root, empty, signature, end = note.split("\n")
    assert (origin, size, empty, end) == (ORIGIN, "17", "", "")
    assert base64.b64decode(root) == ROOT
    dash, name, blob = signature.split(" ")
    assert (dash, name) == ("\u2014", ORIGIN)
    assert len(base64.b64decode(blob)) == 4 + 64


def test_the_id_of_a_key_is_that_of_the_go_note_package() -> None:
    """The vector is the example key of golang.org/x/mod/sumdb/note: PeterNeumann+c74f20a3+..."""
    text = (
        "If you think cryptography is the answer to your problem,\n"
        "then you don't know what your problem is.\n"
    )
    blob = base64.b64decode(
        "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
    )
    kind_and_key = base64.b64decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
    key = Ed25519PublicKey.from_public_bytes(kind_and_key[1:])
    assert key_id_of("PeterNeumann", key) == blob[:4].hex() == "c74f20a3"
    key.verify(blob[4:], text.encode())


@given(size=st.integers(0, 2**63 - 1), root=st.binary(min_size=32, max_size=32))
def test_what_was_signed_is_read_back(size: int, root: bytes) -> None:
    signed = SIGNER.sign(size, root)
    assert verify_note(signed.note, SIGNER.public_key_pem, ORIGIN) == signed


@given(data=st.data())
def test_no_character_of_a_note_can_be_changed(data: st.DataObject) -> None:
    note = SIGNER.sign(1234, ROOT).note
    place = data.draw(st.integers(0, len(note) - 1))
    other = data.draw(st.characters(codec="utf-8").filter(lambda one: one != note[place]))
    with pytest.raises(NoteError):
        verify_note(note[:place] + other + note[place + 1 :], SIGNER.public_key_pem, ORIGIN)


@given(text=st.text(max_size=200))
def test_text_that_is_no_note_is_refused(text: str) -> None:
    with pytest.raises(NoteError):
        verify_note(text, SIGNER.public_key_pem)


def test_a_note_signed_by_others_too_still_verifies() -> None:
    note = SIGNER.sign(3, ROOT).note
    witness = "\u2014 witness.example " + base64.b64encode(bytes(72)).decode() + "\n"
    head = verify_note(note + witness, SIGNER.public_key_pem)
    assert (head.size, head.root) == (3, ROOT)


def test_a_note_of_another_key_is_refused() -> None:
    other = Signer(Ed25519PrivateKey.generate(), ORIGIN)
    said = rf"no signature by this key \({other.key_id}\), but by {SIGNER.key_id}\."
    with pytest.raises(NoteError, match=said):
        verify_note(SIGNER.sign(3, ROOT).note, other.public_key_pem)


def test_a_note_of_another_log_is_refused() -> None:
    other = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))), "other.test/log")
    with pytest.raises(NoteError, match=r"is of log 'other\.test/log'"):
        verify_note(other.sign(3, ROOT).note, SIGNER.public_key_pem, ORIGIN)


@pytest.mark.parametrize("origin", ["", "two words", "a+b", "line\nbreak"])
def test_a_log_cannot_have_a_name_that_notes_do_not_allow(origin: str) -> None:
    with pytest.raises(NoteError, match="name of a log"):
        Signer(Ed25519PrivateKey.generate(), origin)


def test_a_note_names_the_key_that_signed_it() -> None:
    note = SIGNER.sign(3, ROOT).note
    assert re.fullmatch(r"[0-9a-f]{8}", SIGNER.key_id)
    assert signed_by(note) == (ORIGIN, [SIGNER.key_id])
    witness = "\u2014 witness.example " + base64.b64encode(bytes(72)).decode() + "\n"
    assert signed_by(note + witness) == (ORIGIN, [SIGNER.key_id])
    with pytest.raises(NoteError):
        signed_by("no note")


def test_a_public_key_of_another_kind_is_refused() -> None:
    pem = (
        generate_private_key(SECP256R1())
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    with pytest.raises(NoteError, match="no Ed25519 key"):
        load_public_key(pem.decode())
