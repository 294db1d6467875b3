"""``python -m benchmarks [NAME ...] [--json FILE] [--work DIR]``: measure, print, judge.

The exit status is 0 when every bar was met, 1 when one was missed, and 2 when a benchmark could not
be run to its end.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from app.core.embedded import EmbeddedServerError
from app.demo.client import DemoError
from benchmarks import engine, intake, posting, startup
from benchmarks.figures import BenchmarkError, Figure, print_figures, write_figures
from benchmarks.options import require_writable

BENCHMARKS: Mapping[str, Callable[[Path], list[Figure]]] = {
    "startup": startup.measure,
    "intake": intake.measure,
    "posting": posting.measure,
    "engine": engine.measure,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks that the command line names, all by default; return the exit status."""
    given = _parser().parse_args(arguments)
    if given.json is not None:
        try:
            require_writable(given.json)
        except BenchmarkError as error:
            print(f"python -m benchmarks: {error}", file=sys.stderr)
            return 2
    figures: list[Figure] = []
    failures: list[str] = []
    with _work_folder(given.work) as work:
        for name in given.names or BENCHMARKS:
            print(f"{name}: measuring", file=sys.stderr, flush=True)
            try:
                figures += BENCHMARKS[name](work)
            except (BenchmarkError, DemoError, EmbeddedServerError) as error:
                failures.append(f"{name} could not be run to its end: {error}")
    print_figures(figures)
    for failure in failures:
        print(failure, file=sys.stderr)
    if given.json is not None:
        write_figures(given.json, figures)
    if failures:
        return 2
    return 0 if all(figure.held for figure in figures) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = ", ".join(BENCHMARKS)
    parser.add_argument("names", nargs="*", metavar="NAME", type=_name, help=f"of {names}; or all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    parser.add_argument(
        "--work",
        type=Path,
        metavar="DIR",
        help="folder to keep the trained original in, so that the next run need not train it",
    )
    return parser


def _name(text: str) -> str:
    if text not in BENCHMARKS:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(BENCHMARKS)}; got {text!r}")
    return text


@contextmanager
def _work_folder(kept: Path | None) -> Iterator[Path]:
    """Give a folder to work in: the one to keep, or one that is gone at the end."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.absolute()
        return
    folder = Path(tempfile.mkdtemp(prefix="lethe-bench-"))
    folder.chmod(0o711)  # for root, the private PostgreSQL runs as another account
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
