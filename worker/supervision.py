"""Starts the trainer, passes its progress on, and ends its process group when the work must stop."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from worker import protocol

_POLL_SECONDS = 0.1
_GRACE_SECONDS = 10.0
_TAIL_BYTES = 2000
_ROOT = Path(__file__).resolve().parent.parent

Report = Callable[[Mapping[str, Any]], None]
Check = Callable[[], None]


class TrainerRefused(Exception):
    """The engine ended the run for a reason that another attempt would meet again.

    Attributes:
        code: the engine's stable code, such as ``data_error``.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class TrainerCrashed(Exception):
    """The trainer ended without a word: killed, out of memory, or by an error that nobody foresaw."""


def run_trainer(
    workdir: Path, state: Path, *, threads: int, cache: Path, report: Report, check: Check
) -> dict[str, Any]:
    """Run the trainer on ``workdir`` until it ends; returns its result.

    Args:
        workdir: folder of the attempt, with its ``spec.json``.
        state: folder that the attempts of a job share.
        threads: threads that the trainer's libraries may use.
        cache: folder that runs share, for what the trainer may keep between them.
        report: receives progress.
        check: called often; what it raises ends the trainer and is passed on.

    Raises:
        TrainerRefused, TrainerCrashed
    """
    with _started(workdir, state, threads, cache) as trainer:
        reader = threading.Thread(target=_pass_on, args=(trainer, report), daemon=True)
        reader.start()
        while trainer.poll() is None:
            check()
            with suppress(subprocess.TimeoutExpired):
                trainer.wait(_POLL_SECONDS)
        reader.join(_GRACE_SECONDS)
    return _outcome(trainer.returncode, workdir)


@contextmanager
def _started(
    workdir: Path, state: Path, threads: int, cache: Path
) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "worker.trainer", str(workdir), "--state", str(state)]
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = {
        **os.environ,
        **dict.fromkeys(names, str(threads)),
        "TOKENIZERS_PARALLELISM": "false",
        "LETHE_CACHE_DIR": str(cache),
    }
    with (workdir / protocol.LOG).open("wb") as errors:
        trainer = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=_ROOT,
            env=environment,
            start_new_session=True,
        )
    try:
        yield trainer
    finally:
        _end(trainer)


def _end(trainer: subprocess.Popen[str]) -> None:
    """End the whole group: first asked, so that state is saved, then killed."""
    if trainer.poll() is None:
        _signal(trainer, signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_SECONDS
        while trainer.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        if trainer.poll() is None:
            _signal(trainer, signal.SIGKILL)
            trainer.wait()
    for pipe in (trainer.stdin, trainer.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


def _signal(trainer: subprocess.Popen[str], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(trainer.pid, number)


def _pass_on(trainer: subprocess.Popen[str], report: Report) -> None:
    if trainer.stdout is None:
        return
    with suppress(ValueError, OSError):  # the pipe is closed while we read
        for line in trainer.stdout:
            with suppress(json.JSONDecodeError):
                report(json.loads(line))


def _outcome(status: int, workdir: Path) -> dict[str, Any]:
    result, failure = workdir / protocol.RESULT, workdir / protocol.FAILURE
    if status == protocol.SUCCEEDED and result.exists():
        content: dict[str, Any] = json.loads(result.read_text("utf-8"))
        return content
    if status == protocol.REFUSED and failure.exists():
        reason = json.loads(failure.read_text("utf-8"))
        raise TrainerRefused(reason["code"], reason["message"])
    raise TrainerCrashed(f"the trainer ended by {_named(status)}{_last_words(workdir)}")


def _named(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    with suppress(ValueError):
        return f"signal {signal.Signals(-status).name}"
    return f"signal {-status}"


def _last_words(workdir: Path) -> str:
    """Return the last line that the trainer wrote, which names the error if there was one."""
    with (workdir / protocol.LOG).open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
        lines = log.read().decode("utf-8", "replace").strip().splitlines()
    return f": {lines[-1].strip()}" if lines else ""
