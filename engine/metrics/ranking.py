"""Area under the ROC curve, true positive rates, and percentile bootstrap intervals."""

from collections.abc import Callable, Iterator

import numpy as np

from engine.metrics.base import Floats, Rows

REPEATS = 1000
COVERAGE = 0.95
MIN_FOR_INTERVAL = 5
"""Fewer pairs than this give a value but no bootstrap interval: it would be far too narrow."""
CELLS = 50_000
"""Numbers that a block of resamples holds at once: what fits into a processor's cache is faster."""


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
        ranked.aucs(random.integers(0, n, size=(block, n)), random.integers(0, m, size=(block, m)))
        for block in _blocks(n + m)
    ]
    return open_ended(ranked.auc(), percentiles(np.concatenate(values)), min(n, m))


def bootstrap(
    statistic: Callable[[Rows], float], count: int, random: np.random.Generator
) -> tuple[float, float]:
    """Return the 95% percentile interval of ``statistic(rows)``, rows ``(count,)`` drawn anew."""
    values = [statistic(random.integers(0, count, size=count)) for _ in range(REPEATS)]
    return percentiles(np.array(values))


def bootstrap_share(hits: Floats, random: np.random.Generator) -> tuple[float, float]:
    """Return the 95% interval of the share of 1 in ``hits`` ``(n,)``, each 0 or 1."""
    share, n = float(hits.mean()), len(hits)
    # The sum of n draws with replacement from zeros and ones is binomial.
    return open_ended(share, percentiles(random.binomial(n, share, size=REPEATS) / n), n)


def rate_at(members: Floats, others: Floats, false_positives: float) -> float:
    """Return the greatest share of ``members`` above a threshold that few ``others`` are above."""
    return float(_rates(members[None], others[None], false_positives)[0])


def bootstrap_rate(
    members: Floats, others: Floats, false_positives: float, random: np.random.Generator
) -> tuple[float, float]:
    """Return the 95% percentile interval of `rate_at`; both groups are drawn anew."""
    n, m = len(members), len(others)
    rates = [
        _rates(
            members[random.integers(0, n, size=(block, n))],
            others[random.integers(0, m, size=(block, m))],
            false_positives,
        )
        for block in _blocks(n + m)
    ]
    value = rate_at(members, others, false_positives)
    return open_ended(value, percentiles(np.concatenate(rates)), n)


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
        ordered = np.sort(negatives)
        self._below = np.searchsorted(ordered, positives, side="left")
        self._up_to = np.searchsorted(ordered, positives, side="right")
        self._sizes = len(positives), len(negatives)

    def auc(self) -> float:
        """Return the AUC of all scores."""
        n, m = self._sizes
        return float((self._below.sum() + self._up_to.sum()) / (2 * n * m))

    def aucs(self, positives: Rows, negatives: Rows) -> Floats:
        """Return the AUCs ``(R,)`` of R resamplings.

        Args:
            positives: rows of the positives that each one draws ``(R, k)``.
            negatives: rows of the negatives ``(R, l)``, counted from the lowest score.
        """
        drawn = self._drawn_before(negatives)
        lower = np.take_along_axis(drawn, self._below[positives], axis=1).sum(axis=1)
        alike = np.take_along_axis(drawn, self._up_to[positives], axis=1).sum(axis=1)
        found: Floats = (lower + alike) / (2 * positives.shape[1] * negatives.shape[1])
        return found

    def _drawn_before(self, negatives: Rows) -> Rows:
        """Return how many draws of each resampling are among the first 0 to m: ``(R, m + 1)``."""
        repeats, width = len(negatives), self._sizes[1] + 1
        places = negatives + 1 + width * np.arange(repeats)[:, None]
        counts = np.bincount(places.ravel(), minlength=repeats * width)
        return counts.reshape(repeats, width).cumsum(axis=1)


def _rates(members: Floats, others: Floats, false_positives: float) -> Floats:
    """Return `rate_at` for each row of ``members`` ``(R, n)`` and ``others`` ``(R, m)``."""
    count = others.shape[1]
    place = count - 1 - int(np.floor(false_positives * count))
    threshold = np.partition(others, place, axis=1)[:, [place]]
    rates: Floats = (members > threshold).mean(axis=1)
    return rates


def _blocks(width: int) -> Iterator[int]:
    """Cut the resamples into blocks of which each holds at most `CELLS` numbers."""
    size = max(1, min(REPEATS, CELLS // width))
    for start in range(0, REPEATS, size):
        yield min(size, REPEATS - start)
