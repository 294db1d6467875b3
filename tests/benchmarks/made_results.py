"""A results.json made by hand, so that every number in the tables can be checked by hand."""

from typing import Any

Json = dict[str, Any]
HISTOGRAMS = {"low": 0.0, "high": 1.0, "deleted": [1, 3], "retained": [0, 4], "unseen": [2, 2]}


def metric(name: str, value: float | None, subset: str, moment: str = "after") -> Json:
    details = {"histograms": HISTOGRAMS} if name == "d_f" else {}
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
        "details": details,
    }


def unlearned(metrics: list[Json], seconds: float = 2.0, pairs: int = 10) -> Json:
    """A run that is done."""
    cost = {
        "seconds": 9.0,
        "method_seconds": seconds,
        "peak_memory_bytes": 500_000_000,
        "trained_parameters": 1_500_000,
        "samples_seen": 100,
        "steps": 10,
    }
    return {
        "status": "done",
        "reason": None,
        "spec": {"forget": {"request": {"pairs": pairs, "sha256": "00"}}},
        "metrics": metrics,
        "cost": cost,
    }


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
        "commit": "abc",
        "machine": {"processor": "one"},
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
