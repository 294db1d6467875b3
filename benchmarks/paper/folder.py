"""The folder that a benchmark works in: a new one, an empty one, or one of its own."""

import re
from pathlib import Path

from benchmarks.figures import BenchmarkError
from benchmarks.paper import layout
from benchmarks.paper.report import PLOTS, RESULTS
from benchmarks.paper.run import CACHE, DATA, LOCK, RUNS

_RUN_ID = re.compile(r"[0-9a-f]{32}")


def check_folder(out: Path, *, resume: bool) -> None:
    """Refuse a folder in which something could be lost; nothing is written.

    Raises:
        BenchmarkError: it has things that the benchmark did not make, or it has runs or results and is
            not to be gone on with.
    """
    try:
        foreign = _foreign(out) if out.is_dir() else None
    except OSError as error:
        raise BenchmarkError(
            f"{out} cannot be read: {error.strerror}; name another folder"
        ) from error
    if foreign is not None:
        raise BenchmarkError(
            f"{out} is no folder of this benchmark, which did not make {foreign}; name a new or an "
            "empty folder"
        )
    if not resume and ((out / RUNS).exists() or (out / RESULTS).exists()):
        raise BenchmarkError(
            f"{out} holds runs or results of an earlier benchmark; go on with --resume, or name another folder"
        )


def _foreign(out: Path) -> str | None:
    """Return the name of something that the benchmark did not make, if there is any.

    What lies beside its own things, such as notes, is no matter.
    """
    for name in (RUNS, DATA, CACHE, PLOTS):
        if (out / name).exists() and not (out / name).is_dir():
            return name
    if (out / LOCK).is_dir():
        return LOCK
    if (out / RESULTS).exists() and not _is_ours(out / RESULTS):
        return RESULTS
    runs = sorted(path.name for path in (out / RUNS).iterdir()) if (out / RUNS).exists() else []
    strange = [name for name in runs if not _RUN_ID.fullmatch(name)]
    if strange:
        return f"{RUNS}/{strange[0]}"
    if runs or (out / LOCK).is_file() or (out / RESULTS).exists():
        return None
    return min((path.name for path in out.iterdir()), default=None)


def _is_ours(results: Path) -> bool:
    try:
        layout.load(results)
    except BenchmarkError:
        return False
    return True
