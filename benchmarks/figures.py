"""A measured figure, the bar that it is held to, and the table of all of them."""

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table


class BenchmarkError(RuntimeError):
    """A benchmark could not be run to its end; the sentence says why."""


@dataclass(frozen=True)
class Bar:
    """What a figure must be: ``below`` the limit, or ``at least`` the limit."""

    sense: Literal["below", "at least"]
    limit: float

    def met_by(self, value: float) -> bool:
        """Tell whether ``value`` is on the right side of the bar."""
        return value < self.limit if self.sense == "below" else value >= self.limit


@dataclass(frozen=True)
class Figure:
    """One measured quantity.

    Attributes:
        benchmark: name of the benchmark that measured it.
        name: what was measured.
        value: the figure; where it was measured several times, the median.
        unit: of the value; empty for a ratio.
        bar: what it is held to; None: it only explains another figure.
        note: spread, number of measurements, or what else a reader must know.
    """

    benchmark: str
    name: str
    value: float
    unit: str
    bar: Bar | None = None
    note: str = ""

    @property
    def held(self) -> bool:
        """Whether the bar was met; a figure without one holds."""
        return self.bar is None or self.bar.met_by(self.value)

    def cells(self) -> tuple[str, ...]:
        """Return the figure's row of the table."""
        bar = "" if self.bar is None else f"{self.bar.sense} {_number(self.bar.limit)} {self.unit}"
        held = "" if self.bar is None else ("yes" if self.held else "NO")
        value = f"{_number(self.value)} {self.unit}"
        return self.benchmark, self.name, value.strip(), bar.strip(), held, self.note

    def as_json(self) -> dict[str, Any]:
        """Return the figure as plain data."""
        bar = None if self.bar is None else {"sense": self.bar.sense, "limit": self.bar.limit}
        held = None if self.bar is None else self.held
        return {
            "benchmark": self.benchmark,
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "bar": bar,
            "held": held,
            "note": self.note,
        }


def spread(values: Sequence[float]) -> str:
    """Say in words between what ``values`` lie, and how many there are."""
    return f"{_number(min(values))} to {_number(max(values))} in {len(values)} rounds"


def median_figure(
    benchmark: str, name: str, values: Sequence[float], unit: str, bar: Bar | None = None
) -> Figure:
    """Return the median of ``values`` with their spread."""
    return Figure(benchmark, name, statistics.median(values), unit, bar, spread(values))


def machine() -> dict[str, str]:
    """Return what the figures were measured on."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "load averages": load,
        "python": platform.python_version(),
    }


@cache
def commit() -> str:
    """Return the commit of the sources, with a plus sign when files differ from it."""
    where = ["git", "-C", str(Path(__file__).parent)]
    found = subprocess.run(
        [*where, "rev-parse", "HEAD"], check=False, capture_output=True, text=True
    )
    if found.returncode:
        return "unknown"
    changed = subprocess.run(
        [*where, "status", "--porcelain"], check=False, capture_output=True, text=True
    )
    return found.stdout.strip() + ("+" if changed.stdout else "")


def print_figures(figures: Sequence[Figure]) -> None:
    """Print the table, as wide as its content is where nobody watches a terminal."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("benchmark", "figure", "measured", "bar", "held", "note"):
        table.add_column(heading, justify="right" if heading == "measured" else "left")
    for figure in figures:
        table.add_row(*figure.cells())
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 200
    console.print(table)
    for name, value in machine().items():
        console.print(f"{name}: {value}")


def write_figures(path: Path, figures: Sequence[Figure], about: Mapping[str, Any] = {}) -> None:
    """Write the figures, the machine and what else is to be known ``about`` them to ``path`` as JSON."""
    measured = [figure.as_json() for figure in figures]
    content = {"machine": machine(), **about, "figures": measured}
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _number(value: float) -> str:
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 0.01 else f"{value:.1e}"


def _processor() -> str:
    """Return the processor's name where the system tells it, else its architecture."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
