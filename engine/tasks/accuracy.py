"""Accuracy and F1 of predicted classes, with 95% intervals, whole and by label."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.spec import Metric
from engine.tasks.intervals import RESAMPLES, wilson

Classes = NDArray[np.int64]
Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


def classification_metrics(
    truth: Classes | None, guess: Classes | None, names: tuple[str, ...]
) -> list[Metric]:
    """Return ``d_test`` (accuracy) and ``f1``, in points of 100; unavailable without pairs.

    F1 is that of class 1 where there are two classes, and the mean over classes otherwise. By label,
    accuracy is the share of the label's pairs that were found.

    Args:
        truth: ``(N,)`` labels.
        guess: ``(N,)`` predicted classes.
        names: of the C classes, in the order of their numbers.
    """
    if truth is None or guess is None:
        return [_metric(name, None, None, 0, {}) for name in ("d_test", "f1")]
    table = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(table, (truth, guess), 1)
    return [_accuracy(table, names), _f1(table, names)]


def _accuracy(table: Counts, names: tuple[str, ...]) -> Metric:
    """Return the accuracy of a table of counts ``(C, C)`` of truth (rows) and guess."""
    n = int(table.sum())
    value, interval = _share(int(np.trace(table)), n)
    labels = {}
    for number, name in enumerate(names):
        of_label = int(table[number].sum())
        labels[name] = _measured(of_label, *_share(int(table[number, number]), of_label))
    details = {"measure": "accuracy", "interval": "Wilson", "per_label": labels}
    return _metric("d_test", value, interval, n, details)


def _share(right: int, n: int) -> tuple[float | None, tuple[float, float] | None]:
    if not n:
        return None, None
    low, high = wilson(right, n)
    return 100 * right / n, (100 * low, 100 * high)


def _f1(table: Counts, names: tuple[str, ...]) -> Metric:
    average = "binary" if len(names) == 2 else "macro"
    n = int(table.sum())
    by_label = 100 * f1_by_label(table[None])[0]
    # The table is all that F1 needs, so that resamples are drawn from its cells.
    generator = np.random.default_rng(0)
    draws = generator.multinomial(n, table.ravel() / n, RESAMPLES).reshape(-1, *table.shape)
    resampled = 100 * f1_by_label(draws)
    lows, highs = np.percentile(resampled, [2.5, 97.5], axis=0)
    labels = {
        name: _measured(
            int(table[number].sum()), float(by_label[number]), (lows[number], highs[number])
        )
        for number, name in enumerate(names)
    }
    # A class that occurs neither as truth nor as guess has no F1 to be averaged.
    counted = [1] if average == "binary" else np.flatnonzero(table.sum(0) + table.sum(1))
    low, high = np.percentile(resampled[:, counted].mean(axis=1), [2.5, 97.5])
    details = {"average": average, "interval": "bootstrap", "per_label": labels}
    value = float(by_label[counted].mean())
    return _metric("f1", value, (float(low), float(high)), n, details)


def f1_by_label(tables: Counts) -> Floats:
    """Return F1 ``(R, C)``, in 0..1, of each class of R tables ``(R, C, C)`` of truth and guess.

    F1 = 2 TP / (2 TP + FP + FN); 0 of a class that occurs neither as truth nor as guess.
    """
    hits = np.diagonal(tables, axis1=1, axis2=2)
    named = tables.sum(axis=1) + tables.sum(axis=2)
    found: Floats = 2 * hits / np.maximum(named, 1)
    return found


def _measured(n: int, value: float | None, interval: tuple[float, float] | None) -> dict[str, Any]:
    """Return one label's figure; of a label without pairs there is none."""
    if not n or value is None or interval is None:
        return {"n": n, "value": None, "interval": None}
    return {"n": n, "value": value, "interval": [float(end) for end in interval]}


def _metric(
    name: str,
    value: float | None,
    interval: tuple[float, float] | None,
    n: int,
    details: dict[str, Any],
) -> Metric:
    return Metric(
        name=name,
        moment="after",
        subset="test",
        value=value,
        interval=interval,
        n=n,
        direction="higher",
        unit="points",
        unavailable=None if n else "there is no pair to measure",
        details=details,
    )
