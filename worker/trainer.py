"""The trainer: one run of the engine in a process, and a process group, of its own.

``python -m worker.trainer WORKDIR --state DIR`` reads ``WORKDIR/spec.json``; `worker.protocol` says
what it writes. It ends at once when its standard input ends, which is what the kernel does when its
worker dies, and on SIGTERM. Nothing is lost by that: the engine saves its state as it goes, and a
file is there whole or not at all.
"""

import argparse
import fcntl
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from engine.output import own_output
from worker import protocol

if TYPE_CHECKING:
    from engine.spec import Progress, RunResult, RunSpec

_LOCK_SECONDS = 60.0


def main() -> int:
    """Run the spec of the folder that is named on the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description="Run one job of the engine; started by the worker."
    )
    parser.add_argument("workdir", type=Path, help="folder of the attempt")
    parser.add_argument(
        "--state", type=Path, required=True, help="folder that attempts of a job share"
    )
    parser.add_argument(
        "--save-every", type=float, required=True, help="least seconds between saves of the state"
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _stop)
    out = own_output()
    threading.Thread(target=_die_with_worker, daemon=True).start()
    return _run(arguments, out)


def _run(arguments: argparse.Namespace, out: TextIO) -> int:
    # Before all else: without it no error can be told from another.
    from worker import failures

    try:
        with _alone(arguments.state):
            result = _result(arguments, _progress_to(out))
            text = result.model_dump_json()
            protocol.write_atomically(arguments.workdir / protocol.RESULT, text)
    except Exception as error:
        reason = failures.reason(error)
        if reason is None:
            raise
        code, message = reason
        _write_line(out, json.dumps({protocol.FAILURE: {"code": code, "message": message}}))
        return protocol.REFUSED
    return protocol.SUCCEEDED


def _result(arguments: argparse.Namespace, report: "Callable[[Progress], None]") -> "RunResult":
    from engine.memory import keep_freed_memory
    from engine.run import run
    from engine.spec import RunSpec

    keep_freed_memory()
    given = (arguments.workdir / protocol.SPEC).read_text("utf-8")
    return run(
        _on_device(RunSpec.model_validate_json(given)),
        arguments.workdir / protocol.OUT,
        state=arguments.state,
        on_progress=report,
        save_every=arguments.save_every,
    )


def _stop(*_: object) -> None:
    """Leave by an exception, so that what was begun beside the state is cleared away."""
    sys.exit(protocol.STOPPED)


def _on_device(spec: "RunSpec") -> "RunSpec":
    if spec.device != "auto":
        return spec
    import torch

    return spec.model_copy(update={"device": "cuda" if torch.cuda.is_available() else "cpu"})


def _progress_to(out: TextIO) -> "Callable[[Progress], None]":
    return lambda progress: _write_line(out, progress.model_dump_json())


def _write_line(out: TextIO, line: str) -> None:
    out.write(line + "\n")
    out.flush()


def _die_with_worker() -> None:
    while os.read(sys.stdin.fileno(), 64):
        pass
    os.killpg(os.getpgid(0), signal.SIGKILL)


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    """Hold the state folder: a trainer of an earlier attempt may need a moment to be gone.

    Raises:
        TimeoutError: it did not go away.
    """
    state.mkdir(parents=True, exist_ok=True)
    with (state / "lock").open("w") as lock:
        deadline = time.monotonic() + _LOCK_SECONDS
        while not _locked(lock):
            if time.monotonic() > deadline:
                raise TimeoutError(f"another trainer has held {state} for {_LOCK_SECONDS:.0f} s")
            time.sleep(0.1)
        yield


def _locked(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
