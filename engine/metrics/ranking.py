"""Area under the ROC curve, and percentile bootstrap intervals of it and of other statistics."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from engine.metrics.base import Floats

REPEATS = 1000
COVERAGE = 0.95
MIN_FOR_INTERVAL = 5
"""Fewer pairs than this give a value but no bootstrap interval: it would be far too narrow."""

Integers = NDArray[np.intp]


def auc(positives: Floats, negatives: Floats) -> float:
    """Return the chance that a positive ``(n,)`` beats a negative ``(m,)``; ties count half."""
    return Ranked(positives, negatives).auc()


def bootstrap_auc(
    positives: Floats, negatives: Floats, random: np.random.Generator
) -> tuple[float, float]:
    """Return the 95% percentile interval of `auc`; both groups are drawn anew with replacement."""
    ranked = Ranked(positives, negatives)
    n, m = len(positives), len(negatives)
    values = [
        ranked.auc(random.integers(0, n, size=n), random.integers(0, m, size=m))
        for _ in range(REPEATS)
    ]
    return open_ended(ranked.auc(), percentiles(np.array(values)), min(n, m))


def bootstrap(
    statistic: Callable[[Integers], float], count: int, random: np.random.Generator
) -> tuple[float, float]:
    """Return the 95% percentile interval of ``statistic(rows)``, rows ``(count,)`` drawn anew."""
    values = [statistic(random.integers(0, count, size=count)) for _ in range(REPEATS)]
    return percentiles(np.array(values))


def percentiles(values: Floats) -> tuple[float, float]:
    """Return the ends of the middle 95% of ``values`` ``(k,)``."""
    tail = 100 * (1 - COVERAGE) / 2
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)


def open_ended(value: float, interval: tuple[float, float], count: int) -> tuple[float, float]:
    """Return the interval of a share, never without width when the share is exactly 0 or 1.

    Resampling cannot leave such a share, so that its bootstrap interval would claim certainty. Then
    the open end is the exact binomial bound (Clopper-Pearson) for ``count`` pairs, all alike.
    """
    bound = float(((1 - COVERAGE) / 2) ** (1 / count))
    low, high = interval
    if value >= 1:
        return min(low, bound), high
    if value <= 0:
        return low, max(high, 1 - bound)
    return interval


class Ranked:
    """Two groups of scores sorted once, so that the AUC of any resampling costs no sorting.

    Args:
        positives: scores ``(n,)``, n >= 1.
        negatives: scores ``(m,)``, m >= 1.
    """

    def __init__(self, positives: Floats, negatives: Floats) -> None:
        levels, places = np.unique(np.concatenate([positives, negatives]), return_inverse=True)
        self._levels = len(levels)
        self._positives = places[: len(positives)]
        self._negatives = places[len(positives) :]

    def auc(self, positives: Integers | None = None, negatives: Integers | None = None) -> float:
        """Return the AUC of the rows given, or of all rows."""
        above = self._count(self._positives, positives)
        below = self._count(self._negatives, negatives)
        beaten = np.cumsum(below) - below / 2
        return float(above @ beaten / (above.sum() * below.sum()))

    def _count(self, places: Integers, rows: Integers | None) -> Floats:
        chosen = places if rows is None else places[rows]
        return np.bincount(chosen, minlength=self._levels).astype(np.float64)
