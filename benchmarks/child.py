"""``python -m benchmarks.child``: ``python -m engine``, which ends with the process that started it.

Standard input is a pipe from that process. The kernel closes it when the process dies, however it
dies, so that no run is left working in a folder that another one is about to use.
"""

import os
import signal
import sys
import threading

from benchmarks.paper import alternatives
from engine.__main__ import main


def _die_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 64):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    alternatives.register()
    threading.Thread(target=_die_with_parent, daemon=True).start()
    sys.exit(main())
