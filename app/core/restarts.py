"""Starts again the processes of a service that end, for as long as it is served."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from app.core.server_account import EmbeddedServerError
from app.core.server_process import ServerProcess

LOOK_SECONDS = 0.5
SETTLED_SECONDS = 60.0
"""What has run this long after a pause is started again at once."""
LONGEST_PAUSE_SECONDS = 30.0


def keep_running(processes: Sequence[ServerProcess], told: Callable[[str], None]) -> None:
    """Start again whatever ends, for ever.

    What does not start, or ends again soon, is tried after a pause that doubles from one second on:
    what it needs may be away for a while.

    Args:
        processes: in the order of their start.
        told: gets a sentence about each end, and about each start that failed.
    """
    pauses = dict.fromkeys(processes, 0.0)
    due = dict.fromkeys(processes, 0.0)
    while True:
        for process in processes:
            if process.running:
                if time.monotonic() > due[process] + SETTLED_SECONDS:
                    pauses[process] = 0.0
            elif time.monotonic() >= due[process]:
                told(f"The {process.label} ended unexpectedly; it is started again.")
                with _failure_told(told):
                    process.start()
                pauses[process] = min(max(1.0, 2 * pauses[process]), LONGEST_PAUSE_SECONDS)
                due[process] = time.monotonic() + pauses[process]
        time.sleep(LOOK_SECONDS)


@contextmanager
def _failure_told(told: Callable[[str], None]) -> Iterator[None]:
    try:
        yield
    except EmbeddedServerError as error:
        told(str(error))
