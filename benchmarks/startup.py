"""How long the service takes to import, and that torch does not come with it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.figures import Bar, BenchmarkError, Figure, median_figure

NAME = "startup"
ROUNDS = 5
HEAVY = ("torch", "transformers", "sklearn", "engine")
_IMPORT = """
import json, sys, time
began, used = time.perf_counter(), time.process_time()
import app.main
seconds, cpu = time.perf_counter() - began, time.process_time() - used
loaded = [name for name in json.loads(sys.argv[1]) if name in sys.modules]
print(json.dumps({"seconds": seconds, "cpu": cpu, "loaded": loaded}))
"""


def measure(_: Path) -> list[Figure]:
    """Import the service in fresh interpreters, after one that fills the bytecode cache."""
    _fresh_import()
    found = [_fresh_import() for _ in range(ROUNDS)]
    loaded = {name for one in found for name in one["loaded"]}
    seconds, cpu = ([float(one[name]) for one in found] for name in ("seconds", "cpu"))
    return [
        median_figure(
            NAME, "import app.main in a fresh interpreter", seconds, "s", Bar("below", 2)
        ),
        median_figure(NAME, "CPU time of it, which other work changes less", cpu, "s"),
        Figure(
            NAME,
            "libraries of the engine in the process after it",
            len(loaded),
            "",
            Bar("below", 1),
            f"looked for {', '.join(HEAVY)}; found {', '.join(sorted(loaded)) or 'none'}",
        ),
    ]


def _fresh_import() -> dict[str, Any]:
    """Return ``seconds`` and ``cpu`` of the import, and what of `HEAVY` it ``loaded``."""
    done = subprocess.run(
        [sys.executable, "-c", _IMPORT, json.dumps(HEAVY)],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise BenchmarkError(f"app.main cannot be imported: {done.stderr.strip()[-1500:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found
