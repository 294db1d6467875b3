"""Why a metric cannot be computed: sentences that say what was needed and what came."""

import numpy as np
from numpy.typing import NDArray

from engine.metrics.base import Floats


def too_few(what: str, count: int, needed: int) -> str | None:
    """Return the reason when ``count`` pairs of a kind are fewer than ``needed``, or None."""
    if count >= needed:
        return None
    return f"needs at least {needed} {what} pairs; {count} came"


def not_finite(*values: Floats | NDArray[np.float32]) -> str | None:
    """Return the reason when any value is NaN or infinite, or None."""
    broken = sum(int(np.count_nonzero(~np.isfinite(array))) for array in values)
    if not broken:
        return None
    return f"{broken} scores or outputs of the model are not finite numbers"
