"""Pair scores as they are: the scale that they stand on, and how they are spread."""

from typing import Any

import numpy as np

from engine.metrics.base import Floats

PROBABILITY = (0.0, 1.0)
COSINE = (-1.0, 1.0)
BINS = 20
EDGE = 1e-7
"""Share of a scale that is cut off at both ends, about what single precision can tell from it."""


def span(*scores: Floats) -> tuple[float, float]:
    """Return the scale of finite scores: that of probabilities, of cosines, or their own range."""
    filled = [group for group in scores if len(group)]
    low = min((float(group.min()) for group in filled), default=0.0)
    high = max((float(group.max()) for group in filled), default=1.0)
    for scale in (PROBABILITY, COSINE):
        if scale[0] <= low and high <= scale[1]:
            return scale
    return low, high


def logit_scaled(scores: Floats, scale: tuple[float, float]) -> Floats:
    """Return log((s - low) / (high - s)) of scores, as LiRA scales them to look Gaussian.

    For cosines this is twice Fisher's z. Scores on a scale of their own stay as they are.
    """
    if scale not in (PROBABILITY, COSINE):
        return scores
    low, high = scale
    share = np.clip((scores - low) / (high - low), EDGE, 1 - EDGE)
    scaled: Floats = np.log(share) - np.log1p(-share)
    return scaled


def histograms(**groups: Floats) -> dict[str, Any]:
    """Return counts of each group's scores in `BINS` equal bins, as JSON.

    On the scales of probabilities and cosines the bins are the same before and after.

    Returns:
        ``low`` and ``high``, the outer edges, and for each group its counts.
    """
    low, high = span(*groups.values())
    counts = {
        name: np.histogram(scores, bins=BINS, range=(low, high))[0].tolist()
        for name, scores in groups.items()
    }
    return {"low": low, "high": high, **counts}
