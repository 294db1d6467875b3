"""One private server process: started behind a supervisor, stopped in order, locked to its data.

The supervisor (`app.core.supervisor`) is a small process in a session of its own: Ctrl-C in the
terminal does not reach the server before its clients have stopped, and the server is stopped in
order even when the process that started it is killed. A lock that every process of a server
inherits keeps a second one away from the same data.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

from app.core.server_account import Account, EmbeddedServerError

_SUPERVISOR = Path(__file__).with_name("supervisor.py")
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_SILENT_SECONDS = 1.5
_LOCK_SECONDS = 25.0  # longer than the supervisor of an earlier server is patient


class ServerProcess(ABC):
    """One private server: a context manager that starts it and stops it.

    Attributes:
        name: of its log and lock files.
        label: what messages call it.
        stop_signal: the signal that ends it in order.
        log: file of what it prints; None: it prints on our standard error.
        pid: process id of the server itself, while it runs.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, data_dir: Path, *, temporary: bool = False) -> None:
        self.data_dir = data_dir.absolute()
        self.temporary = temporary
        self.pid: int | None = None
        self._supervisor: subprocess.Popen[str] | None = None
        self._lock: int | None = None
        self.data_dir.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.log: Path | None = self.data_dir / f"{self.name}.log"

    @property
    @abstractmethod
    def url(self) -> str:
        """URL for clients; the same after a restart of this object's server."""

    @abstractmethod
    def _prepare(self) -> Sequence[str]:
        """Make what the server needs on disk, and return its command line.

        Commands that this runs are given the lock (``self._lock``), as the server will be.
        """

    @abstractmethod
    def _answers(self) -> bool:
        """Tell whether the server accepts clients."""

    def _account(self) -> Account | None:
        """Return the account that the server runs as, or None for our own."""
        return None

    def _remove(self) -> list[Path]:
        """Return the paths that go when the server is stopped."""
        return []

    def _environment(self) -> Mapping[str, str] | None:
        """Return the server's environment, or None for our own."""
        return None

    @property
    def running(self) -> bool:
        """Whether the server was started and has not ended since."""
        return self._supervisor is not None and self._supervisor.poll() is None

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            EmbeddedServerError: it did not answer, or its data is in use by another process.
        """
        self.stop()  # what is left of one that crashed
        try:
            with self._locked() as lock:
                self._launch(lock, self._prepare())
            self._wait()
        except OSError as error:
            self.stop()
            raise EmbeddedServerError(
                f"The {self.label} cannot be started in {self.data_dir}: {error}. Expected a folder that "
                "this user may write, and room in it."
            ) from error
        except BaseException:  # Ctrl-C may come at any moment
            self.stop()
            raise

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """Give a descriptor that holds the server's lock, once an earlier server has ended.

        The file names the process that the server is for.
        """
        path = self.data_dir / f"{self.name}.lock"
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        began = time.monotonic()
        told = False
        try:
            while not _taken(descriptor):
                waited = time.monotonic() - began
                if waited > _LOCK_SECONDS:
                    raise EmbeddedServerError(self._in_use(path))
                if waited > _SILENT_SECONDS and not told:
                    told = True
                    sys.stderr.write(f"Waiting for the {self.label} of {_owner(path)} to end.\n")
                time.sleep(0.1)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            self._lock = descriptor
            yield descriptor
        finally:
            self._lock = None
            os.close(descriptor)

    def _in_use(self, path: Path) -> str:
        return (
            f"Another process uses the data below {path.parent}: the {self.label} of {_owner(path)}. Stop "
            "it, or choose another data directory (--data-dir, LETHE_DATA_DIR)."
        )

    def _launch(self, lock: int, command: Sequence[str]) -> None:
        account = self._account()
        order = {
            "command": list(command),
            "uid": account.uid if account else None,
            "gid": account.gid if account else None,
            "log": str(self.log) if self.log else None,
            "lock": lock,
            "stop_signal": int(self.stop_signal),
            "remove": [str(folder) for folder in self._remove()],
        }
        self._supervisor = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_SUPERVISOR), json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=(lock,),
            start_new_session=True,
            env=self._environment(),
        )
        line = self._supervisor.stdout.readline() if self._supervisor.stdout else ""
        if not line:
            raise self._failure("could not be started")
        self.pid = int(line)

    def _wait(self) -> None:
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end:
            if self._supervisor is None or self._supervisor.poll() is not None:
                raise self._failure("ended while it started")
            if self._answers():
                return
            time.sleep(0.02)
        raise self._failure(f"did not answer within {_START_SECONDS:.0f} s")

    def _failure(self, what: str) -> EmbeddedServerError:
        if self.log is None:
            return EmbeddedServerError(f"The {self.label} {what}; its messages stand above.")
        tail = ""
        with contextlib.suppress(OSError):
            tail = self.log.read_text(errors="replace")[-1500:]
        return EmbeddedServerError(f"The {self.label} {what}. End of {self.log}:\n{tail}")

    def stop(self) -> None:
        """Stop the server in order and wait for its end; nothing happens when it is not running."""
        supervisor, self._supervisor, self.pid = self._supervisor, None, None
        if supervisor is None:
            return
        for pipe in (supervisor.stdin, supervisor.stdout):
            if pipe is not None:
                pipe.close()
        try:
            supervisor.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            supervisor.kill()
            supervisor.wait()

    def kill(self) -> None:
        """Kill the server at once, as a crash would (SIGKILL); `start` brings it back."""
        if self.pid is not None and self._supervisor is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self._supervisor.wait(_STOP_SECONDS)
        self.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for path in self._remove():  # what the supervisor left, had it been killed
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _owner(lock: Path) -> str:
    """Return in words which process a server is for."""
    pid = ""
    with contextlib.suppress(OSError):
        pid = lock.read_text().strip()
    return f"process {pid}" if pid.isdigit() else "another process"


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
