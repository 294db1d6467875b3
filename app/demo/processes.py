"""Commands of the engine that the demo waits for, each in a process that ends with the demo."""

import signal
import subprocess
import sys
from collections.abc import Sequence

from app.core.supervisor import as_child


def run_python(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run Python to its end and return what it printed; it is killed where this process ends first.

    Where the system can do that (Linux), this also holds when we are killed with SIGKILL.
    """
    return subprocess.run(
        [sys.executable, *arguments],
        check=False,
        capture_output=True,
        text=True,
        preexec_fn=as_child(signal.SIGKILL),
    )
