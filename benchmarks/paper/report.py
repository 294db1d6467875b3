"""Write what was measured: ``results.json``, ``tables.md``, ``runs.md`` and ``plots/``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.options import make_folder
from benchmarks.paper.origins import measured_on, traced
from benchmarks.paper.plots import draw
from benchmarks.paper.results import Json, Results
from benchmarks.paper.tables import absences, tables

RESULTS, TABLES, RUNS, PLOTS = "results.json", "tables.md", "runs.md", "plots"


def write_results(content: Json, out: Path) -> Results:
    """Write ``results.json`` whole or not at all."""
    draft = out / f"{RESULTS}.tmp"
    draft.write_text(_lines(content), encoding="utf-8")
    draft.replace(out / RESULTS)
    return Results(content)


def _lines(content: Json) -> str:
    """Return JSON with a line for each cell and each run, so that a difference shows what changed."""
    parts = {name: _compact(value) for name, value in content.items()}
    parts["cells"] = _block("[]", [_compact(cell) for cell in content["cells"]])
    runs = content["runs"].items()
    parts["runs"] = _block("{}", [f"{_compact(name)}:{_compact(run)}" for name, run in runs])
    return _block("{}", [f"{_compact(name)}:{text}" for name, text in parts.items()]) + "\n"


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _block(ends: str, lines: Sequence[str]) -> str:
    inside = ",\n".join(lines)
    return f"{ends[0]}\n{inside}\n{ends[1]}"


def write_report(results: Results, out: Path) -> list[Path]:
    """Write tables, the runs behind them, and plots, and return the files.

    Raises:
        BenchmarkError: the folder cannot be made, or matplotlib is not installed; the tables are there
            even so.
    """
    make_folder(out)
    (out / TABLES).write_text(markdown(results), encoding="utf-8")
    (out / RUNS).write_text(traced(results), encoding="utf-8")
    return [out / TABLES, out / RUNS, *draw(results, out / PLOTS)]


def markdown(results: Results) -> str:
    """Return every table, what they were measured on, and why a cell is empty."""
    parts = [
        "# The paper's experiments\n",
        measured_on(results),
        *(table.markdown() for table in tables(results)),
    ]
    missing = absences(results)
    if missing:
        parts.append("## Cells without a value\n\n" + "\n".join(missing) + "\n")
    return "\n".join(parts)
