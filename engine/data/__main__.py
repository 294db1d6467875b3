"""``lethe convert``: turn a data set of a known format into the manifest that the service and runs take.

The report that is printed has what ``POST /v1/datasets`` asks for: modality, root and classes. Where only
the engine is installed, the command is ``python -m engine.data``.
"""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from engine.data.convert import ConvertReport, convert, summary_of
from engine.data.formats import formats
from engine.errors import EngineError

ENDING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
"""Signals that end the command."""


def _known() -> str:
    try:
        lines = [f"  {name}: {summary_of(formats.get(name))}" for name in formats]
    except EngineError as error:  # a broken format of another distribution
        return str(error)
    return "\n".join(["formats:", *lines])


def main(arguments: list[str] | None = None) -> int:
    """Run the command; prints the report as JSON and returns the exit status.

    SIGINT, SIGTERM and SIGHUP end it with exit status 128 and the signal's number.
    """
    with _ended_in_order():
        given = _parser().parse_args(arguments)
        try:
            report = convert(given.path, given.out, given.format, given.images)
        except EngineError as error:
            _complain(f"{error.code}: {error}")
            return 1
        return _print(report, given.out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lethe convert",
        description=__doc__,
        epilog=_known(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", type=Path, help="folder or file of the data set")
    parser.add_argument("out", type=Path, help="manifest to write (JSON lines)")
    parser.add_argument("--format", help="name of the format; detected when left out")
    parser.add_argument(
        "--images", type=Path, help="folder or archive of the images, if not below the data set"
    )
    return parser


@contextmanager
def _ended_in_order() -> Iterator[None]:
    """Let signals end the command by an exception, so that nothing unfinished is left.

    A signal that is ignored, as by nohup, stays so; only a main thread can take signals.
    """
    main_thread = threading.current_thread() is threading.main_thread()
    taken = [n for n in ENDING if main_thread and signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, _end) for number in taken}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    del frame
    for other in ENDING:  # a second one must not end the tidying
        signal.signal(other, signal.SIG_IGN)
    raise SystemExit(128 + number)


def _print(report: ConvertReport, out: Path) -> int:
    try:
        sys.stdout.write(report.model_dump_json(indent=2) + "\n")
        sys.stdout.flush()
    except (AttributeError, OSError, ValueError) as error:  # no reader, or a name that is no UTF-8
        reason = error if sys.stdout else "standard output is closed"
        _forget_output()
        _complain(f"{out} is written, but its report cannot be printed: {reason}")
        return 1
    return 0


def _forget_output() -> None:
    """Let what could not be printed go nowhere; Python would try, and fail, again at its end."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _complain(sentence: str) -> None:
    if sys.stderr is not None:
        with suppress(OSError):
            sys.stderr.write(sentence + "\n")


if __name__ == "__main__":
    sys.exit(main())
