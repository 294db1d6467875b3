"""95% intervals of what tasks measure."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
NORMAL_975 = 1.959963984540054
"""97.5% quantile of the standard normal distribution."""
RESAMPLES = 1000


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Return the score interval of a proportion in 0..1 (Wilson 1927); ``n`` at least 1."""
    share, z2 = successes / n, NORMAL_975**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = NORMAL_975 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap_mean(groups: Sequence[Floats], seed: int = 0) -> tuple[float, float]:
    """Return the percentile interval of the mean of the groups' means.

    Each group ``(n_g,)`` is resampled on its own, `RESAMPLES` times (Efron 1979).
    """
    generator = np.random.default_rng(seed)
    means = np.zeros(RESAMPLES)
    for values in groups:
        n = len(values)
        for resample in range(RESAMPLES):
            means[resample] += values[generator.integers(0, n, n)].mean() / len(groups)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
