"""``python -m engine SPEC.json OUT [--state DIR] [--save-every SECONDS]``: one run, told as JSON lines.

Each line on standard output is ``{"progress": {...}}``, and the last one ``{"result": {...}}``. An
error of the engine (`engine.errors`) ends the run with exit status 1 and
``{"error": {"code": ..., "message": ...}}`` as the last line, any other with a traceback on standard
error; SIGTERM and SIGINT cancel the run. What a library or an extension prints goes to standard
error. Of several processes (docs/gpus.md) the main one tells; the others say on standard error why
they failed.
"""

import argparse
import json
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from pydantic import ValidationError

from engine.data.lines import reason_of
from engine.errors import Cancelled, EngineError, InvalidSpec
from engine.memory import keep_freed_memory
from engine.output import own_output
from engine.processes import is_main, joined
from engine.run import run
from engine.spec import RunSpec


class Signals:
    """A control that cancels the run when the process is asked to end."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGINT, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.asked = True

    def check(self) -> None:
        """See `Control.check`."""
        if self.asked:
            raise Cancelled("the process was asked to end")


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line says and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m engine", description="One run of the engine.")
    parser.add_argument("spec", type=Path, help="run specification, a JSON file")
    parser.add_argument("out", type=Path, help="folder for checkpoint and result.json")
    parser.add_argument("--state", type=Path, help="folder for training state, to go on later")
    parser.add_argument(
        "--save-every", type=float, default=30.0, help="least seconds between saves"
    )
    given = parser.parse_args(arguments)
    keep_freed_memory()
    stream = out = own_output()
    try:
        spec = _read(given.spec)
        with joined(spec.device):
            stream = out if is_main() else sys.stderr
            result = run(
                spec,
                given.out,
                state=given.state,
                on_progress=lambda event: _tell({"progress": event.model_dump(mode="json")}, out),
                control=Signals(),
                save_every=given.save_every,
            )
    except EngineError as error:
        _tell({"error": {"code": error.code, "message": str(error)}}, stream)
        return 1
    if stream is out:
        _tell({"result": result.model_dump(mode="json")}, out)
    return 0


def _read(path: Path) -> RunSpec:
    try:
        return RunSpec.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidSpec(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        reason = reason_of(error, RunSpec)
        raise InvalidSpec(f"{path} is no run specification: {reason}") from error


def _tell(line: dict[str, Any], stream: TextIO) -> None:
    stream.write(json.dumps(line) + "\n")
    stream.flush()


if __name__ == "__main__":
    sys.exit(main())
