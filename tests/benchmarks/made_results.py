"""A results.json made by hand, so that every number in the tables can be checked by hand."""

from typing import Any

from benchmarks.paper.plan import AT_ONCE, FINAL

Json = dict[str, Any]
Made = tuple[list[Json], dict[str, Json]]
"""Cells, and runs by id."""
HISTOGRAMS = {"low": 0.0, "high": 1.0, "deleted": [1, 3], "retained": [0, 4], "unseen": [2, 2]}
ENVIRONMENT = {"platform": "Linux x86_64", "device": "cpu", "torch": "2.0"}


def metric(
    name: str, value: float | None, subset: str, moment: str = "after", **details: Any
) -> Json:
    return {
        "name": name,
        "moment": moment,
        "subset": subset,
        "value": value,
        "interval": None,
        "n": 10,
        "direction": "higher",
        "unit": "",
        "unavailable": None if value is not None else "too few pairs",
        "details": ({"histograms": HISTOGRAMS} if name == "d_f" else {}) | details,
    }


def unlearned(
    metrics: list[Json], seconds: float = 2.0, pairs: int = 10, commit: str = "abc"
) -> Json:
    """A run that is done."""
    cost = {
        "seconds": 9.0,
        "method_seconds": seconds,
        "peak_memory_bytes": 500_000_000,
        "trained_parameters": 1_500_000,
        "samples_seen": 100,
        "steps": 10,
    }
    machine = {"processor": "one", "cores": "2", "load averages": str(seconds), "python": "3.11"}
    return {
        "status": "done",
        "reason": None,
        "spec": {"forget": {"request": {"pairs": pairs, "sha256": "00"}}},
        "provenance": {"commit": commit, "machine": machine},
        "environment": ENVIRONMENT,
        "metrics": metrics,
        "cost": cost,
    }


def ended(status: str, reason: str) -> Json:
    """A run that gave nothing."""
    nothing = dict.fromkeys(("provenance", "environment", "cost"))
    spec: Json = {"forget": {}}
    return {"status": status, "reason": reason, "spec": spec, "metrics": [], **nothing}


def both(test: float, forgetting: float, ratio: float | None = None) -> list[Json]:
    """D_test and D_f after (and 90 and 50 before), and the MI ratio after."""
    found = [
        metric("d_test", 90.0, "test", "before"),
        metric("d_f", 50.0, "forget", "before"),
        metric("d_test", test, "test"),
        metric("d_f", forgetting, "forget"),
    ]
    return [*found, metric("mi_ratio", ratio, "forget")]


def cell(
    preset: str, row: str, run_id: str | None, *, seed: int = 0, part: str = "main", **more: str
) -> Json:
    return {
        "part": part,
        "preset": preset,
        "family": "gcn_bert",
        "amount": more.get("amount", "10%"),
        "row": row,
        "seed": seed,
        "run_id": run_id,
        "reason": more.get("reason"),
    }


def content(cells: list[Json], runs: dict[str, Json], seeds: int = 3) -> Json:
    names = dict.fromkeys(cell["preset"] for cell in cells)
    return {
        "format": 1,
        "commit": "def",
        "machine": {"processor": "another"},
        "options": {
            "amounts": ["10%"],
            "seeds": seeds,
            "parts": ["main"],
            "device": "cpu",
            "threads": 1,
        },
        "data": {name: {"title": name.upper(), "task": "graph_text"} for name in names},
        "cells": cells,
        "runs": runs,
    }


def traded() -> Made:
    """Two seeds of two targets and of the other aim; seeds differ by 2 points, .02 and .2."""
    rows = {"target 5": (80, 10, 0.30, 1.5), "target 50": (88, 48, 0.6, 1), "calibrated": None}
    cells, runs = [], {}
    for row, values in rows.items():
        test, forgetting, unseen, ratio = values or (85, 28, 0.5, 1.2)
        for seed in (0, 1):
            found = both(test + 2 * seed, forgetting + 2 * seed, ratio + seed / 5)
            found.append(metric("unseen_auc", 0.65, "forget", "before"))
            found.append(metric("unseen_auc", unseen + seed / 50, "forget"))
            cells.append(cell("a", row, f"{row} {seed}", seed=seed, part="tradeoff"))
            runs[f"{row} {seed}"] = unlearned(found)
    return cells, runs


def mapped() -> Made:
    """A method's own row beside one whose choice was another."""
    rows = {"lcodec": (88, 50), "lcodec, no noise": (89, 49)}
    cells = [cell("a", row, row, part="mappings") for row in rows]
    return cells, {row: unlearned(both(*values)) for row, values in rows.items()}


def attacked() -> Made:
    """An attack that has too few pairs for rates on one model, and for .1% also over references."""

    def found(name: str, group: str, moment: str, *values: float | None) -> Json:
        direct, pooled = values
        few = None if pooled is not None else "needs at least 1000 never seen pairs; 720 came"
        over = {"value": pooled, "unavailable": few}
        made = metric(name, direct, group, moment, reference_models=8, on_references=over)
        return made if direct is not None else made | {"unavailable": "needs more; 90 came"}

    metrics = [
        found("ulira_auc", "forget", "before", 0.8, 0.75),
        found("ulira_auc", "forget", "after", 0.55, 0.52),
        found("ulira_tpr_at_1pct_fpr", "forget", "after", None, 0.014),
        found("ulira_tpr_at_0.1pct_fpr", "forget", "after", None, None),
        found("ulira_auc", "retained", "after", 0.6, 0.58),
        found("ulira_tpr_at_1pct_fpr", "retained", "after", 0.025, 0.02),
        found("ulira_tpr_at_0.1pct_fpr", "retained", "after", None, 0.003),
    ]
    return [cell("a", "multidelete", "m")], {"m": unlearned(metrics)}


def labelled() -> Made:
    """Three labels, of one of which there are too few pairs for a figure; the task has an F1."""

    def found(name: str, moment: str, *values: float | None) -> Json:
        labels = dict(zip(("0", "2", "10"), values, strict=True))
        by = {label: {"value": value} for label, value in labels.items()}
        return metric(name, 1.0, "forget", moment, per_label=by)

    metrics = [
        found("d_f", "before", 51, 49, None),
        found("d_f", "after", 18, 9, None),
        found("unseen_auc", "before", 0.6, 0.7, None),
        found("unseen_auc", "after", 0.41, 0.32, None),
        found("mi_ratio", "after", 1.1, 1.4, None),
        metric("f1", 66.0, "test", "before"),
        metric("f1", 64.5, "test"),
    ]
    return [cell("a", "multidelete", "m")], {"m": unlearned(metrics)}


def in_sequences() -> Made:
    """Two seeds; the rises of the second one are twice as large."""
    cells, runs = in_sequence()
    more, others = in_sequence(seed=1, rise=2.0)
    for name, run in others.items():
        runs[f"{name} again"] = run
    again = [{**one, "run_id": f"{one['run_id']} again"} for one in more]
    return [*cells, *again], runs


def in_sequence(seed: int = 0, rise: float = 1.0) -> Made:
    """Four requests: D_f of the first three rises by 3, 1 and 2 until the end, times ``rise``."""
    names = [f"request-0{number}" for number in range(1, 5)]
    after = dict(zip(names, (30.0, 32.0, 34.0, 36.0), strict=True))
    rises = dict(zip(names, (3.0, 1.0, 2.0, 0.0), strict=True))
    final = {name: after[name] + rise * rises[name] for name in names}
    runs = {name: unlearned(both(88.0, after[name], 1.2)) for name in names}
    once, end = [metric("d_test", 89.0, "test")], [metric("d_test", 87.0, "test")]
    for name in names:
        subset = f"request:{name}"
        once += [metric("d_f", 28.0, subset), metric("mi_ratio", 1.4, subset)]
        once.append(metric("mi_attack_auc", 0.7, subset, "before", mean_on_deleted=0.6))
        once.append(metric("mi_attack_auc", 0.6, subset, mean_on_deleted=0.43))
        end += [metric("d_f", final[name], subset), metric("unseen_auc", 0.45, subset)]
        end.append(metric("mi_attack_auc", 0.6, subset, mean_on_deleted=0.4))
    runs |= {AT_ONCE: unlearned(once), FINAL: unlearned(end)}
    rows = (AT_ONCE, *names, FINAL)
    return [cell("a", row, row, part="sequence", amount="17%", seed=seed) for row in rows], runs
