"""The trainer: one run of the engine in a process, and a process group, of its own.

``python -m worker.trainer WORKDIR --state DIR`` reads ``WORKDIR/spec.json``; `worker.protocol` says
what it writes. It ends at once when its standard input ends, which is what the kernel does when its
worker dies, and it stops with its state saved on SIGTERM.
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

from worker import protocol

if TYPE_CHECKING:
    from engine.spec import Progress, RunSpec

_LOCK_SECONDS = 60.0


class _Stop:
    """Asks the engine to stop once SIGTERM has come."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: self._asked.set())
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def check(self) -> None:
        from engine.errors import Cancelled

        if self._asked.is_set():
            raise Cancelled("the worker asked the run to stop")


def main() -> int:
    """Run the spec of the folder that is named on the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description="Run one job of the engine; started by the worker."
    )
    parser.add_argument("workdir", type=Path, help="folder of the attempt")
    parser.add_argument(
        "--state", type=Path, required=True, help="folder that attempts of a job share"
    )
    arguments = parser.parse_args()
    report = _progress_to(_take_stdout())
    threading.Thread(target=_die_with_worker, daemon=True).start()
    with _alone(arguments.state):
        return _run(arguments.workdir, arguments.state, report)


def _run(workdir: Path, state: Path, report: "Callable[[Progress], None]") -> int:
    stop = _Stop()
    from engine.errors import Cancelled, EngineError
    from engine.run import run
    from engine.spec import RunSpec

    try:
        spec = _on_device(RunSpec.model_validate_json((workdir / protocol.SPEC).read_text("utf-8")))
        result = run(spec, workdir / protocol.OUT, state=state, on_progress=report, control=stop)
    except Cancelled:
        return protocol.STOPPED
    except EngineError as error:
        failure = {"code": error.code, "message": str(error)}
        protocol.write_atomically(workdir / protocol.FAILURE, json.dumps(failure))
        return protocol.REFUSED
    protocol.write_atomically(workdir / protocol.RESULT, result.model_dump_json())
    return protocol.SUCCEEDED


def _on_device(spec: "RunSpec") -> "RunSpec":
    if spec.device != "auto":
        return spec
    import torch

    return spec.model_copy(update={"device": "cuda" if torch.cuda.is_available() else "cpu"})


def _take_stdout() -> TextIO:
    """Keep standard output for progress; what libraries print goes to standard error."""
    kept = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return kept


def _progress_to(out: TextIO) -> "Callable[[Progress], None]":
    def report(progress: "Progress") -> None:
        out.write(progress.model_dump_json() + "\n")
        out.flush()

    return report


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
