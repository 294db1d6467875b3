"""What a process of the engine tells the one that started it, line by line on standard output."""

import os
import sys
from typing import TextIO


def own_output() -> TextIO:
    """Keep standard output for those lines alone.

    What libraries print, and extensions, goes to standard error from then on.

    Returns:
        The stream to write lines to.
    """
    kept = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    sys.stdout.flush()  # what was printed before this and not written yet
    return kept
