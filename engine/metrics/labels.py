"""The same measure for the pairs of each label on its own, mostly the deleted ones.

A mean can hide that one label was forgotten and another was not: where most pairs are negative, an
unrelated pair is mostly predicted negative, and deleted negatives stay "correct".
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.metrics.base import Floats, Labels, Rows
from engine.metrics.ranking import MIN_FOR_INTERVAL, bootstrap_share
from engine.metrics.reasons import too_few

LEAST = MIN_FOR_INTERVAL
"""Pairs of a label that are needed for a figure with an interval."""
MOST_LABELS = 20
"""Labels that are reported, the most frequent ones: the audit of a model is a small document."""


@dataclass(frozen=True)
class Figure:
    """A value on some pairs, or why there is none.

    ``against`` is the number of pairs that they are compared with.
    """

    value: float | None = None
    interval: tuple[float, float] | None = None
    unavailable: str | None = None
    against: int | None = None


def share(hits: Floats, seed: int) -> Figure:
    """Return the share of 1 in ``hits`` ``(n,)`` in points of 100, with its interval from 5 on."""
    interval = None
    if len(hits) >= MIN_FOR_INTERVAL:
        low, high = bootstrap_share(hits, np.random.default_rng([seed, 9]))
        interval = (100 * low, 100 * high)
    return Figure(100 * float(hits.mean()), interval)


def share_by_label(labels: Labels | None, hits: Floats, seed: int) -> dict[str, dict[str, Any]]:
    """Return `share` for the pairs of each label; see `by_label`."""
    return by_label(labels, lambda _label, rows: share(hits[rows], seed))


def by_label(
    labels: Labels | None, measure: Callable[[int, Rows], Figure], group: str = "deleted"
) -> dict[str, dict[str, Any]]:
    """Return ``value, interval, n, unavailable`` (and ``against``) by label, as JSON.

    Args:
        labels: of the pairs ``(n,)``, -1 where there is none; without any the result is empty.
        measure: makes one figure from a label and the rows ``(k,)`` of its pairs, k >= 5.
        group: what the pairs are, for the reason why a label has too few.
    """
    if labels is None:
        return {}
    values, counts = np.unique(labels[labels >= 0], return_counts=True)
    shown = sorted(values[np.argsort(-counts, kind="stable")[:MOST_LABELS]].tolist())
    rows = {label: np.flatnonzero(labels == label) for label in shown}
    return {str(label): _entry(label, rows[label], measure, group) for label in shown}


def _entry(
    label: int, rows: Rows, measure: Callable[[int, Rows], Figure], group: str
) -> dict[str, Any]:
    reason = too_few(group, len(rows), LEAST)
    found = Figure(unavailable=reason) if reason else measure(label, rows)
    entry: dict[str, Any] = {
        "value": found.value,
        "interval": None if found.interval is None else list(found.interval),
        "n": len(rows),
        "unavailable": found.unavailable,
    }
    return entry if found.against is None else entry | {"against": found.against}
