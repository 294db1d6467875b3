"""Memory of a process while a block runs, read from the system every 50 ms."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import BenchmarkError

SAMPLE_SECONDS = 0.05
_MEGABYTE = 10**6


@dataclass
class Memory:
    """Resident memory of a process, in bytes: before the block, and the most during it."""

    before: int
    peak: int

    @property
    def growth(self) -> float:
        """How much the process grew at its peak, in MB."""
        return (self.peak - self.before) / _MEGABYTE


@contextmanager
def watched(pid: int | None) -> Iterator[Memory]:
    """Watch process ``pid`` while the block runs; what is given is complete after the block.

    The system's own high-water mark is used as well where the block raised it, so that a peak
    between two samples counts.

    Raises:
        BenchmarkError: there is no such process, or the system has no /proc.
    """
    resident, mark = _read(pid)
    memory = Memory(resident, resident)
    done = threading.Event()

    def sample() -> None:
        while not done.wait(SAMPLE_SECONDS):
            memory.peak = max(memory.peak, _read(pid)[0])

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        done.set()
        thread.join()
    resident, raised = _read(pid)
    memory.peak = max(memory.peak, resident, raised if raised > mark else 0)


def _read(pid: int | None) -> tuple[int, int]:
    """Return resident memory now and its high-water mark, in bytes."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError as error:
        raise BenchmarkError(f"The memory of process {pid} cannot be read: {error}") from error
    fields = dict(line.split(":", 1) for line in lines)
    now, mark = (int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))
    return now, mark
