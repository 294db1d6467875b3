"""What worker and trainer say to one another: files in the attempt's folder, progress lines, exit codes.

The worker writes ``spec.json`` (the engine's RunSpec). The trainer writes progress as one JSON
object a line to its standard output and, at its end, ``result.json`` or ``failure.json`` (``code``,
``message``).
"""

import os
from pathlib import Path

SPEC = "spec.json"
RESULT = "result.json"
FAILURE = "failure.json"
OUT = "out"
LOG = "trainer.log"
CHECKPOINT = "checkpoint"

SUCCEEDED = 0
REFUSED = 10
"""The engine says that the run cannot succeed: trying again would end in the same way."""
STOPPED = 11
"""The trainer was asked to stop, and left its state for the next attempt."""


def write_atomically(path: Path, content: str) -> None:
    """Write a file that is there whole or not at all, also after a crash."""
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
