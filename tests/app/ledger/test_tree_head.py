"""Signed tree heads and the key that signs them."""

import base64
import os
import re
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, NoEncryption
from hypothesis import given
from hypothesis import strategies as st

from app.ledger import tree_head
from app.ledger.key_file import KeyFileError
from app.ledger.tree_head import (
    NoteError,
    Signer,
    load_public_key,
    signed_by,
    verify_note,
)
from tests.terminal import environment

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


def test_the_key_hash_is_that_of_the_go_note_package() -> None:
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
    assert tree_head._key_hash("PeterNeumann", key) == blob[:4] == bytes.fromhex("c74f20a3")
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


def test_the_key_is_made_once_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "ledger.pem"
    first = Signer.load_or_create(path, ORIGIN)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert Signer.load_or_create(path, ORIGIN).public_key_pem == first.public_key_pem
    assert [one.name for one in path.parent.iterdir()] == ["ledger.pem"]


def test_processes_that_start_at_once_use_one_key(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "ledger.pem"
    with ThreadPoolExecutor(8) as pool:
        made = [pool.submit(Signer.load_or_create, path, ORIGIN) for _ in range(16)]
    assert len({future.result().public_key_pem for future in made}) == 1
    assert [one.name for one in path.parent.iterdir()] == ["ledger.pem"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_key_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "ledger.pem"
    Signer.load_or_create(path, ORIGIN)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match="chmod 600"):
        Signer.load_or_create(path, ORIGIN)


def _pem(key: Any, passphrase: bytes | None = None) -> bytes:
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    pem: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    return pem


ED25519 = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NO_KEYS = {
    "another kind": (_pem(generate_private_key(SECP256R1())), "holds no Ed25519 key"),
    "encrypted": (_pem(ED25519, b"secret"), "it is encrypted, .*openssl pkey -in"),
    "half a key": (_pem(ED25519)[:60], "expected an Ed25519 key in a PEM file"),
    "public": (SIGNER.public_key_pem.encode(), "expected an Ed25519 key in a PEM file"),
    "no key": (b"root:x:0:0:root:/root:/bin/bash\n", "expected an Ed25519 key in a PEM file"),
    "nothing": (b"", "expected an Ed25519 key in a PEM file"),
}


@pytest.mark.parametrize(("content", "said"), NO_KEYS.values(), ids=NO_KEYS)
def test_a_file_that_holds_no_usable_key_is_left_alone_and_refused_in_a_sentence(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "ledger.pem"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(KeyFileError, match=said) as refused:
        Signer.load_or_create(path, ORIGIN)
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)
    assert path.read_bytes() == content


def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(KeyFileError, match=r"cannot be read as a private key: it is no file\."):
            Signer.load_or_create(path, ORIGIN)
    with pytest.raises(KeyFileError, match="No such file"):
        Signer.load(tmp_path / "none", ORIGIN)
    assert not (tmp_path / "none").exists()


def test_a_key_that_has_no_room_leaves_no_half_of_one(small_disk: Path) -> None:
    with suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    with pytest.raises(KeyFileError, match=r"cannot be made: No space left"):
        Signer.load_or_create(small_disk / "ledger.pem", ORIGIN)
    assert [one.name for one in small_disk.iterdir()] == ["filler"]


KILLED = """
import os, signal, sys
from pathlib import Path
from app.ledger.tree_head import Signer
path, left = Path(sys.argv[1]), iter(range(int(sys.argv[2])))
def hook(event, arguments):
    ours = event in ("open", "os.link", "os.remove") and str(arguments[0]).startswith(str(path.parent))
    if ours and next(left, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
Signer.load_or_create(path, "lethe.test/log")
"""


@pytest.mark.parametrize(("before", "made"), [("write", False), ("name", False), ("tidy", True)])
def test_a_process_that_is_killed_while_it_makes_the_key_leaves_none_or_a_whole_one(
    tmp_path: Path, before: str, made: bool
) -> None:
    moment = {"write": 0, "name": 1, "tidy": 3}[before]  # 2 is the folder, opened to be flushed
    path = tmp_path / "ledger.pem"
    command = [sys.executable, "-c", KILLED, str(path), str(moment)]
    done = subprocess.run(command, check=False, env=environment())
    assert done.returncode == -signal.SIGKILL
    assert path.exists() == made
    first = Signer.load(path, ORIGIN).key_id if made else None
    assert first in {None, Signer.load_or_create(path, ORIGIN).key_id}


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


def test_a_key_mounted_by_another_user_may_be_readable_by_a_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.pem"
    made = Signer.load_or_create(path, ORIGIN)
    path.chmod(0o440)
    owner = path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert Signer.load_or_create(path, ORIGIN).public_key_pem == made.public_key_pem
