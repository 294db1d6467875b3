"""Which errors end a job at once, and which are worth another attempt."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open

from engine.errors import CheckpointError, DataError, DeviceUnavailable, InvalidSpec, StorageFull
from worker import failures


def _system(number: int) -> OSError:
    return OSError(number, os.strerror(number), "/srv/weights")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataError("no image", file="a.png"), "data_error"),
        (InvalidSpec("no such task"), "invalid_spec"),
        (CheckpointError("damaged"), "checkpoint_error"),
        (StorageFull("full"), "storage_full"),
        (ValueError("hidden_size must be divisible by heads"), "run_error"),
        (KeyError("vocab_size"), "run_error"),
        (json.JSONDecodeError("no JSON", "{", 0), "run_error"),
        (ModuleNotFoundError("no such encoder"), "run_error"),
        (ZeroDivisionError(), "run_error"),
        (NotImplementedError("no such kernel"), "run_error"),
        (_system(errno.ENOSPC), "storage_full"),
        (_system(errno.EDQUOT), "storage_full"),
        (_system(errno.ENOENT), "file_error"),
        (_system(errno.EACCES), "file_error"),
        (_system(errno.EROFS), "file_error"),
        (_system(errno.EFBIG), "file_error"),
        (OSError("this folder holds no tokenizer"), "file_error"),
        (SafetensorError("Error while deserializing header"), "file_error"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "storage_full"),
        (SafetensorError("I/O error: File too large (os error 27)"), "file_error"),
    ],
    ids=repr,
)
def test_what_another_attempt_would_meet_again_has_a_code_and_its_sentence(
    error: Exception, code: str
) -> None:
    found = failures.reason(error)
    assert found is not None
    assert found[0] == code
    assert str(error) in found[1]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory"),
        DeviceUnavailable("the GPU is gone"),
        _system(errno.EIO),
        _system(errno.ESTALE),
        _system(errno.ENOMEM),
        ConnectionResetError("peer"),
        TimeoutError("another trainer has held the state"),
        SafetensorError("I/O error: Input/output error (os error 5)"),
    ],
    ids=repr,
)
def test_what_may_pass_is_left_to_another_attempt(error: Exception) -> None:
    assert failures.reason(error) is None


def test_real_libraries_raise_what_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(SafetensorError) as damaged:
        safe_open(tmp_path / "model.safetensors", framework="np")
    assert failures.reason(damaged.value) is not None
    with pytest.raises(FileNotFoundError) as gone:
        safe_open(tmp_path / "none.safetensors", framework="np")
    assert failures.reason(gone.value) is not None


def test_the_sentence_names_error_and_line_and_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="odd") as raised:
        raise ValueError("odd size")
    found = failures.reason(raised.value)
    assert found is not None
    assert "ValueError: odd size (tests/worker/test_failures.py, line " in found[1]
    assert "correct what it names" in found[1]
