"""A command in a terminal of its own, so that Ctrl-C reaches it as a real one does."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_TAIL = 5000
# A session's leader takes its standard input as the terminal that controls the session. What a shell runs in
# the background, as it may run the tests, has Ctrl-C ignored; what has a terminal has not.
_LAUNCH = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGINT, signal.SIG_DFL)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def environment(**settings: str) -> dict[str, str]:
    """Return an environment that finds our packages and has these settings of Lethe, and no others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LETHE_")}
    return {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **settings}


class Terminal:
    """Runs ``lethe`` as the foreground job of a new terminal, and keeps what it prints."""

    def __init__(self, *arguments: str, cwd: Path, env: Mapping[str, str]) -> None:
        self._screen = ""
        self._master, slave = os.openpty()
        command = [sys.executable, "-m", "app.cli", *arguments]
        self.process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=env,
            cwd=cwd,
            start_new_session=True,
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):  # what the system says once nobody has the terminal open
            while data := os.read(self._master, 1 << 16):
                self._screen += data.decode(errors="replace")

    @property
    def screen(self) -> str:
        """Everything that was printed so far, without colours."""
        return _COLOURS.sub("", self._screen)

    def expect(self, pattern: str, seconds: float = 120) -> str:
        """Wait until the screen matches ``pattern``; returns its group, or all of the match."""
        end = time.monotonic() + seconds
        while (found := re.search(pattern, self.screen)) is None:
            assert self.process.poll() is None, self.screen[-_TAIL:]
            assert time.monotonic() < end, self.screen[-_TAIL:]
            time.sleep(0.05)
        return found.group(1) if found.groups() else found.group(0)

    def press_ctrl_c(self) -> None:
        """Have the terminal interrupt its foreground processes."""
        os.write(self._master, b"\x03")

    def family(self) -> list[psutil.Process]:
        """Return every process that the command started."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def wait(self, seconds: float = 60) -> int:
        """Wait for the end of the command; returns its exit status."""
        status = self.process.wait(seconds)
        self._reader.join(10)
        return status

    def close(self) -> None:
        """End the command, if it still runs, and the terminal."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join(10)
        os.close(self._master)
