"""How tables read one number from a cell: a metric, a detail of it, or what the run took."""

from collections.abc import Iterable

import numpy as np

from benchmarks.paper.grid import Read
from benchmarks.paper.results import Column, Json, Mean, Results

DIRECTIONS = {"ir": "IR", "tr": "TR"}
DEPTHS = (1, 5, 10)
PROBES = {"probe_item": "image or graph", "probe_text": "text"}
INTERVALS = "Means over seeds with 95% t-intervals."


def metric(results: Results, name: str, *, subset: str = "forget") -> Read:
    """Read the value of a metric."""
    return lambda cell, moment: results.value(cell, name, moment, subset)


def detail(results: Results, name: str, *path: str, subset: str = "forget") -> Read:
    """Read a number from the details of a metric, by the keys that lead to it."""

    def read(cell: Json, moment: str) -> float | None:
        metric = results.metric(cell, name, moment, subset)
        found = None if metric is None else metric.get("details")
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        return None if found is None else float(found)

    return read


def median_score(results: Results, group: str) -> Read:
    """Read the score that half of a group of pairs is above, to the middle of a bin of the histogram."""

    def read(cell: Json, moment: str) -> float | None:
        metric = results.metric(cell, "d_f", moment)
        found = {} if metric is None else metric.get("details", {}).get("histograms", {})
        counts = found.get(group)
        if not counts or not sum(counts):
            return None
        place = int(np.searchsorted(np.cumsum(counts), sum(counts) / 2))
        width = (found["high"] - found["low"]) / len(counts)
        return float(found["low"] + width * (place + 0.5))

    return read


def in_points(read: Read) -> Read:
    """Read a share in points of 100."""

    def scaled(cell: Json, moment: str) -> float | None:
        found = read(cell, moment)
        return None if found is None else 100 * found

    return scaled


def lost(results: Results, subset: str = "test") -> Read:
    """Read how much D_test fell: the originals differ more from seed to seed than methods do."""

    def read(cell: Json, moment: str) -> float | None:
        before, after = (results.value(cell, "d_test", m, subset) for m in ("before", "after"))
        if moment == "before" or before is None or after is None:
            return None
        return before - after

    return read


def utilities(results: Results, column: Column) -> dict[str, Read]:
    """Return D_test of a data set by direction, where it has two; else under an empty name."""
    cells = results.select("main", column) + results.select("ablation", column)
    if any(results.metric(cell, "ir_r1", subset="test") for cell in cells):
        return {name: _recalls(results, short) for short, name in DIRECTIONS.items()}
    return {"": metric(results, "d_test", subset="test")}


def _recalls(results: Results, direction: str) -> Read:
    """Read the mean recall of one direction, in points."""

    def read(cell: Json, moment: str) -> float | None:
        names = [f"{direction}_r{depth}" for depth in DEPTHS]
        found = [results.value(cell, name, moment, "test") for name in names]
        known = [value for value in found if value is not None]
        return sum(known) / len(known) if len(known) == len(names) else None

    return read


def spent(results: Results, name: str, unit: float) -> Read:
    """Read what the run of a method took, in a unit."""

    def read(cell: Json, moment: str) -> float | None:
        run = results.run(cell)
        cost = (run and run["cost"]) or {}
        return cost[name] / unit if moment == "after" and name in cost else None

    return read


def sizes(results: Results, cells: Iterable[Json], name: str, subset: str = "forget") -> str:
    """Return on how many pairs or queries a metric was measured, over all cells."""
    found = (results.metric(cell, name, subset=subset) for cell in cells)
    return span(None if metric is None else metric.get("n") for metric in found)


def span(counts: Iterable[float | None]) -> str:
    """Return whole numbers as one, or as the least and the greatest; without any, a question mark."""
    known = [int(count) for count in counts if count is not None]
    if not known:
        return "?"
    least, most = min(known), max(known)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def seconds_by_size(results: Results, column: Column) -> dict[str, dict[int, Mean]]:
    """Return what each method took, over seeds, by the number of pairs that were to be deleted."""
    found: dict[str, dict[int, Mean]] = {}
    read = spent(results, "method_seconds", 1.0)
    for row in results.rows("sizes"):
        cells = results.select("sizes", column, row)
        for pairs in sorted({int(cell["amount"]) for cell in cells}):
            values = [read(cell, "after") for cell in cells if int(cell["amount"]) == pairs]
            mean = Mean.of([value for value in values if value is not None])
            if mean is not None:
                found.setdefault(row, {})[pairs] = mean
    return found


def labels(results: Results, cells: list[Json]) -> list[str]:
    """Return the labels that deleted pairs of these cells have, in their order."""
    found: set[str] = set()
    for cell in cells:
        measured = results.metric(cell, "d_f") or {}
        found |= set(measured.get("details", {}).get("per_label", {}))
    return sorted(found, key=int)
