"""What worker and trainer say to one another: files in the attempt's folder, lines, exit codes.

The worker writes ``spec.json`` (the engine's RunSpec). The trainer writes JSON objects to its
standard output, one a line: progress, and at the end of a run that cannot succeed ``{"failure":
{"code": ..., "message": ...}}``, which a full disk must not keep back. At the end of one that did it
leaves ``result.json``.
"""

import os
from pathlib import Path

SPEC = "spec.json"
RESULT = "result.json"
OUT = "out"
LOG = "trainer.log"
CHECKPOINT = "checkpoint"
FAILURE = "failure"

SUCCEEDED = 0
REFUSED = 10
"""The run cannot succeed: trying again would end in the same way."""
STOPPED = 11
"""The trainer was asked to stop; the state that it has saved is the next attempt's."""


def write_atomically(path: Path, content: str) -> None:
    """Write a file that is there whole or not at all, also after a crash."""
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
