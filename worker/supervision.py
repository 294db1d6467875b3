"""Starts the trainer, passes its progress on, and ends its process group when the work must stop."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from worker import protocol

_POLL_SECONDS = 0.1
_GRACE_SECONDS = 2.0
_READ_SECONDS = 10.0
_TAIL_BYTES = 2000
_ROOT = Path(__file__).resolve().parent.parent

Report = Callable[[Mapping[str, Any]], None]
Check = Callable[[], None]


class TrainerRefused(Exception):
    """The run ended for a reason that another attempt would meet again.

    Attributes:
        code: a stable code, such as ``data_error``; see `worker.failures` for those not the engine's.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class TrainerCrashed(Exception):
    """The trainer ended without a word: killed, out of memory, or by an error that may pass."""


def run_trainer(
    workdir: Path,
    state: Path,
    *,
    threads: int,
    cache: Path,
    save_every: float,
    report: Report,
    check: Check,
) -> dict[str, Any]:
    """Run the trainer on ``workdir`` until it ends; returns its result.

    Args:
        workdir: folder of the attempt, with its ``spec.json``.
        state: folder that the attempts of a job share.
        threads: threads that the trainer's libraries may use.
        cache: folder that runs share, for what the trainer may keep between them.
        save_every: least seconds between two saves of the state.
        report: receives progress.
        check: called often; what it raises ends the trainer and is passed on.

    Raises:
        TrainerRefused, TrainerCrashed
    """
    saving = ["--state", str(state), "--save-every", str(save_every)]
    with _started(workdir, saving, threads, cache) as trainer:
        reader = _Reader(trainer, report)
        reader.start()
        while trainer.poll() is None:
            check()
            with suppress(subprocess.TimeoutExpired):
                trainer.wait(_POLL_SECONDS)
        reader.join(_READ_SECONDS)
    return _outcome(trainer.returncode, reader.failure, workdir)


class _Reader(threading.Thread):
    """Reads what the trainer says: passes progress on and keeps the reason of a failure."""

    def __init__(self, trainer: subprocess.Popen[str], report: Report) -> None:
        super().__init__(name="trainer", daemon=True)
        self._said = trainer.stdout
        self._report = report
        self.failure: Mapping[str, str] | None = None

    def run(self) -> None:
        """Read until the trainer ends."""
        with suppress(ValueError, OSError):  # the pipe is closed while we read
            for line in self._said or ():
                with suppress(json.JSONDecodeError):
                    self._take(json.loads(line))

    def _take(self, said: Mapping[str, Any]) -> None:
        failure = said.get(protocol.FAILURE)
        if failure is None:
            self._report(said)
        else:
            self.failure = failure


@contextmanager
def _started(
    workdir: Path, saving: Sequence[str], threads: int, cache: Path
) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "worker.trainer", str(workdir), *saving]
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = {
        # Threads of GNU OpenMP that spin for long while they wait take the cores from those that they
        # wait for: ten times slower where anything else runs.
        "GOMP_SPINCOUNT": "2000",
        **os.environ,
        **dict.fromkeys(names, str(threads)),
        "TOKENIZERS_PARALLELISM": "false",
        "LETHE_CACHE_DIR": str(cache),
        "LETHE_CACHE_PAIRS": "",  # what is deleted must be nowhere, whatever this process was given
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
    """End the whole group: first asked, then killed, as it does not listen inside a library's call."""
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


def _outcome(status: int, failure: Mapping[str, str] | None, workdir: Path) -> dict[str, Any]:
    result = workdir / protocol.RESULT
    if status == protocol.SUCCEEDED and result.exists():
        content: dict[str, Any] = json.loads(result.read_text("utf-8"))
        return content
    if status == protocol.REFUSED and failure is not None:
        raise TrainerRefused(failure["code"], failure["message"])
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
