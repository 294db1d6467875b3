"""``results.json``: every cell and every run as plain data, and how tables and plots read it."""

import hashlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from scipy.stats import t as student

from benchmarks.figures import commit, machine
from benchmarks.paper import layout
from benchmarks.paper.data import BenchData
from benchmarks.paper.layout import FORMAT, Json
from benchmarks.paper.plan import Cell, Job, Options
from benchmarks.paper.run import Bench, Outcome
from benchmarks.paper.variants import variants
from benchmarks.runs import placeless
from engine.spec import Metric

SHOWN = ("d_test", "d_f", "unseen_auc", "mi_ratio", "probe_item", "probe_text")
"""Metrics of whose absence tables tell the reason."""
Column = tuple[str, str]
"""(preset, family)."""


def collect(
    options: Options, data: Mapping[str, BenchData], cells: Sequence[Cell], bench: Bench
) -> Json:
    """Return everything that was measured. No id of a pair is in it."""
    return {
        "format": FORMAT,
        "commit": commit(),
        "machine": machine(),
        "options": {
            "amounts": [amount.text for amount in options.amounts],
            "seeds": options.seeds,
            "first_seed": options.first_seed,
            "settings": {method: dict(given) for method, given in options.settings.items()},
            "parts": list(options.parts),
            "device": options.device,
            "threads": options.threads,
        },
        "data": {
            name: {
                "title": options.known[name].title,
                "task": options.known[name].task,
                "sha256": one.digest,
                "training_pairs": one.training,
            }
            for name, one in data.items()
        },
        "cells": [_cell(cell) for cell in cells],
        "runs": {job.run_id: _run(job, bench.outcome(job), data) for job in bench.jobs},
    }


def _cell(cell: Cell) -> Json:
    return {
        "part": cell.part,
        "preset": cell.preset,
        "family": cell.family,
        "amount": cell.amount,
        "row": cell.row,
        "seed": cell.seed,
        "run_id": None if cell.job is None else cell.job.run_id,
        "reason": cell.reason,
    }


def _run(job: Job, outcome: Outcome, data: Mapping[str, BenchData]) -> Json:
    places = {"data", "checkpoint", "forget", "forgotten"}
    spec = placeless(job.spec).model_dump(mode="json", exclude=places)
    for name in ("forget", "forgotten"):
        spec[name] = {key: _counted(ids) for key, ids in getattr(job.spec, name).items()}
    result = outcome.result
    return {
        "status": outcome.status,
        "reason": outcome.reason,
        "spec": spec,
        "parent": None if job.parent is None else job.parent.run_id,
        "data_sha256": next(d.digest for d in data.values() if d.spec == job.spec.data),
        "provenance": outcome.provenance,
        "environment": None if result is None else result.environment,
        "cost": None if result is None else result.cost.model_dump(mode="json"),
        "metrics": [] if result is None else [_metric(m) for m in result.metrics],
    }


def _metric(metric: Metric) -> Json:
    """Return a metric without what it does not have, and to nine digits."""
    kept: Json = _rounded(metric.model_dump(mode="json", exclude_defaults=True))
    return kept


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list) else value


def _counted(ids: Sequence[str]) -> Json:
    return {"pairs": len(ids), "sha256": hashlib.sha256("\n".join(ids).encode()).hexdigest()}


@dataclass(frozen=True)
class Mean:
    """A mean over seeds with half the width of its 95% t-interval; None with one seed."""

    value: float
    half: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Mean | None":
        """Return the mean of ``values``, or None without any."""
        if not values:
            return None
        n, half = len(values), None
        if n > 1:
            half = float(student.ppf(0.975, n - 1)) * statistics.stdev(values) / n**0.5
        return cls(statistics.fmean(values), half, n)

    def text(self, decimals: int = 1) -> str:
        """Return the mean with half its interval, where there is one."""
        half = "" if self.half is None else f" ± {self.half:.{decimals}f}"
        return f"{self.value:.{decimals}f}{half}"


class Results:
    """Reads what `collect` made.

    Args:
        content: the content of ``results.json``.
    """

    def __init__(self, content: Json) -> None:
        self.content = content
        self.cells: list[Json] = content["cells"]

    @classmethod
    def read(cls, path: Path) -> "Results":
        """Read ``results.json``; raises `BenchmarkError` where the file is none."""
        return cls(layout.read(path))

    @cached_property
    def columns(self) -> list[Column]:
        """Data sets with their families, in the order of the plan."""
        return list(dict.fromkeys((cell["preset"], cell["family"]) for cell in self.cells))

    def lineups(self) -> list[list[Column]]:
        """Return the columns of each set of tables: every data set with its first family, and so on.

        The paper has ALBEF beside GCN and BERT in one table, and BLIP in another.
        """
        by_preset: dict[str, list[Column]] = {}
        for column in self.columns:
            by_preset.setdefault(column[0], []).append(column)
        depth = max((len(columns) for columns in by_preset.values()), default=0)
        return [
            [columns[place] for columns in by_preset.values() if len(columns) > place]
            for place in range(depth)
        ]

    @property
    def amounts(self) -> list[str]:
        """How much was deleted, the first amount first."""
        return list(self.content["options"]["amounts"])

    def title(self, column: Column) -> str:
        """Return the heading of a column; it names the family where a data set has several."""
        title = str(self.content["data"][column[0]]["title"])
        several = sum(preset == column[0] for preset, _ in self.columns) > 1
        return f"{title} ({column[1]})" if several else title

    def rows(self, part: str) -> list[str]:
        """Return the rows of a part, in the order of the plan.

        Data sets that were run at other times may have other methods: these are in the order of methods.
        """
        found = dict.fromkeys(cell["row"] for cell in self.cells if cell["part"] == part)
        if part != "main":
            return list(found)
        ranks = {variant.row: rank for rank, variant in enumerate(variants())}
        return sorted(found, key=lambda row: ranks.get(row, len(ranks)))

    def seeds(self, part: str) -> int:
        """Return how many seeds a part has."""
        return len({cell["seed"] for cell in self.cells if cell["part"] == part})

    def select(
        self, part: str, column: Column, row: str | None = None, amount: str | None = None
    ) -> list[Json]:
        """Return the cells of a part and column, of one row and amount where these are given."""
        return [
            cell
            for cell in self.cells
            if cell["part"] == part
            and (cell["preset"], cell["family"]) == column
            and row in (None, cell["row"])
            and amount in (None, cell["amount"])
        ]

    def run(self, cell: Json) -> Json | None:
        """Return the run behind a cell, if it has one."""
        found: Json | None = self.content["runs"].get(cell["run_id"])
        return found

    def metric(
        self, cell: Json, name: str, moment: str = "after", subset: str = "forget"
    ) -> Json | None:
        """Return a metric of the run behind a cell, if it was measured."""
        run = self.run(cell)
        for metric in run["metrics"] if run else ():
            if (metric["name"], metric["moment"], metric["subset"]) == (name, moment, subset):
                return dict(metric)
        return None

    def value(
        self, cell: Json, name: str, moment: str = "after", subset: str = "forget"
    ) -> float | None:
        """Return the value of a metric, if it was measured."""
        metric = self.metric(cell, name, moment, subset)
        return None if metric is None or metric["value"] is None else float(metric["value"])

    def status(self, cell: Json) -> str:
        """Return how the run behind a cell ended.

        A cell that names no run is not applicable. One whose run is not in the file is missing: nothing
        says how that run ended.
        """
        if cell["run_id"] is None:
            return "not applicable"
        run = self.run(cell)
        return "missing" if run is None else str(run["status"])

    def reasons(self) -> Iterator[tuple[Json, str, str]]:
        """Yield (cell, status, reason) of each cell that has no value, or no value of a metric."""
        for cell in self.cells:
            reason = self._reason(cell)
            if reason is not None:
                yield cell, self.status(cell), str(reason)
            for name, why in _unmeasured((self.run(cell) or {"metrics": ()})["metrics"]):
                yield cell, f"no {name}", why

    def _reason(self, cell: Json) -> Any:
        if cell["run_id"] is None:
            return cell["reason"]
        run = self.run(cell)
        return "its run is not in results.json" if run is None else run["reason"]


def _unmeasured(metrics: Sequence[Json]) -> Iterator[tuple[str, str]]:
    """Yield name and reason of each figure of the tables that a run could not give.

    Of the attack on each pair only where reference models were asked for.
    """
    for metric in metrics:
        name, details = metric["name"], metric.get("details", {})
        where = f" ({metric['subset']})" if "reference_models" in details else ""
        if metric.get("unavailable") and (name in SHOWN or where):
            yield f"{name}{where}", str(metric["unavailable"])
        pooled = details.get("on_references", {}).get("unavailable")
        if pooled:
            yield f"{name} over references{where}", str(pooled)
