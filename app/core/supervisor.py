"""Holds one server process, and ends it in order when its owner goes away, however it goes.

Run by path with a bare interpreter (standard library only)::

    python -I -S supervisor.py '{"command": [...], ...}'

The owner keeps the write end of this process's standard input. Its end, also the one that the
kernel makes when the owner is killed with SIGKILL, is the order to stop. The server itself is told
by the kernel when this process is killed, where the system can do that (Linux).
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

_PR_SET_PDEATHSIG = 1
_PATIENCE_SECONDS = 20.0
_IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)


def as_child(stop_signal: int) -> Callable[[], None]:
    """Return what a child runs before exec (``preexec_fn``), started by a process of one thread.

    It gets the signal when we are killed, and hears those that we ignore: what is ignored stays so
    across exec, and a server that is still starting would miss the order to stop.
    """
    parent = os.getpid()
    linux = sys.platform == "linux"
    prctl = ctypes.CDLL(None, use_errno=True).prctl if linux else None

    def become() -> None:
        for ignored in _IGNORED:
            signal.signal(ignored, signal.SIG_DFL)
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, stop_signal, 0, 0, 0)
            if os.getppid() != parent:  # we were killed before the kernel had been told
                os.kill(os.getpid(), stop_signal)

    return become


def _start(order: dict[str, Any]) -> subprocess.Popen[bytes]:
    account: dict[str, Any] = {}
    if order["uid"] is not None:
        account = {"user": order["uid"], "group": order["gid"], "extra_groups": []}
    path = order["log"]
    # pathlib would cost a third of the start
    with open(path, "ab") if path else os.fdopen(os.dup(2), "ab") as log:  # noqa: PTH123
        return subprocess.Popen(
            order["command"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            umask=0o077,
            # Every process of the server holds the lock: it is free only when all have ended.
            pass_fds=(order["lock"],),
            preexec_fn=as_child(order["stop_signal"]),  # noqa: PLW1509 - no thread yet
            **account,
        )


def _stop_when_left_alone(
    server: subprocess.Popen[bytes], stop_signal: int, told: threading.Event
) -> None:
    while os.read(0, 64):
        pass
    told.set()
    server.send_signal(stop_signal)
    try:
        server.wait(_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()


def _remove(path: str) -> None:
    if os.path.isdir(path):  # noqa: PTH112 - pathlib costs a third of the start
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            os.unlink(path)  # noqa: PTH108 - the same


def main() -> int:
    """Run the server that the first argument names until it or its owner ends."""
    order: dict[str, Any] = json.loads(sys.argv[1])
    for ignored in _IGNORED:
        signal.signal(ignored, signal.SIG_IGN)
    server = _start(order)
    sys.stdout.write(f"{server.pid}\n")
    sys.stdout.flush()
    told = threading.Event()
    threading.Thread(
        target=_stop_when_left_alone, args=(server, order["stop_signal"], told), daemon=True
    ).start()
    status = server.wait()
    if told.is_set():  # the owner is done; after a crash it may start the server again
        for path in order["remove"]:
            _remove(path)
    return status


if __name__ == "__main__":
    sys.exit(main())
