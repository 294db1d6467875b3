"""The file of the log's private key: made whole or not at all, read only where it is safe."""

import os
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
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, NoEncryption

from app.ledger.key_file import KeyFileError, create_key, read_key
from tests.terminal import environment


def made(path: Path) -> bytes:
    """Make a key where there is none, and return the one that is there."""
    create_key(path)
    return read_key(path).private_bytes_raw()


def test_the_key_is_made_once_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "ledger.pem"
    first = made(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert made(path) == first
    assert [one.name for one in path.parent.iterdir()] == ["ledger.pem"]


def test_processes_that_start_at_once_use_one_key(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "ledger.pem"
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(made, [path] * 16))
    assert len(keys) == 1
    assert [one.name for one in path.parent.iterdir()] == ["ledger.pem"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_key_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "ledger.pem"
    create_key(path)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match="chmod 600"):
        read_key(path)


def _pem(key: Any, passphrase: bytes | None = None) -> bytes:
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    pem: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    return pem


ED25519 = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = ED25519.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
NO_KEYS = {
    "another kind": (_pem(generate_private_key(SECP256R1())), "holds no Ed25519 key"),
    "encrypted": (_pem(ED25519, b"secret"), "it is encrypted, .*openssl pkey -in"),
    "half a key": (_pem(ED25519)[:60], "expected an Ed25519 key in a PEM file"),
    "public": (PUBLIC, "expected an Ed25519 key in a PEM file"),
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
    create_key(path)
    with pytest.raises(KeyFileError, match=said) as refused:
        read_key(path)
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)
    assert path.read_bytes() == content


def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(KeyFileError, match=r"cannot be read as a private key: it is no file\."):
            read_key(path)
    with pytest.raises(KeyFileError, match="No such file"):
        read_key(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_key_that_has_no_room_leaves_no_half_of_one(small_disk: Path) -> None:
    with suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))
    with pytest.raises(KeyFileError, match=r"cannot be made: No space left"):
        create_key(small_disk / "ledger.pem")
    assert [one.name for one in small_disk.iterdir()] == ["filler"]


KILLED = """
import os, signal, sys
from pathlib import Path
from app.ledger.key_file import create_key
path, left = Path(sys.argv[1]), iter(range(int(sys.argv[2])))
def hook(event, arguments):
    ours = event in ("open", "os.link", "os.remove") and str(arguments[0]).startswith(str(path.parent))
    if ours and next(left, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
create_key(path)
"""


@pytest.mark.parametrize(("before", "whole"), [("write", False), ("name", False), ("tidy", True)])
def test_a_process_that_is_killed_while_it_makes_the_key_leaves_none_or_a_whole_one(
    tmp_path: Path, before: str, whole: bool
) -> None:
    moment = {"write": 0, "name": 1, "tidy": 3}[before]  # 2 is the folder, opened to be flushed
    path = tmp_path / "ledger.pem"
    command = [sys.executable, "-c", KILLED, str(path), str(moment)]
    done = subprocess.run(command, check=False, env=environment())
    assert done.returncode == -signal.SIGKILL
    assert path.exists() == whole
    first = read_key(path).private_bytes_raw() if whole else None
    assert first in {None, made(path)}


def test_a_key_mounted_by_another_user_may_be_readable_by_a_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ledger.pem"
    key = made(path)
    path.chmod(0o440)
    owner = path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert read_key(path).private_bytes_raw() == key
