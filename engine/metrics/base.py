"""What a metric is: a function of a model's scores and outputs on named sets of pairs.

Metrics know no family and no task: they see arrays. `engine.audit` collects the arrays once a model
and hands them to every registered metric.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.registry import Registry
from engine.spec import Metric

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Observed:
    """What one model says of one set of n pairs: ``scores`` ``(n,)`` and ``outputs`` ``(n, C)``."""

    scores: Floats
    outputs: Floats
    labels: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class Evidence:
    """One model's observations that the metrics of one subset need.

    Attributes:
        subset: name of the deleted subset: ``forget``, ``forgotten`` or ``request:<id>``.
        deleted: its pairs (D_f).
        retained: a random sample of D_r, at least five times D_f where there are so many.
        validation: held-out validation pairs, which no model was fitted to.
        unseen: held-out pairs for the comparison with the unseen (validation and test).
        seed: of every random choice.
    """

    subset: str
    deleted: Observed
    retained: Observed
    validation: Observed
    unseen: Observed
    seed: int


ForgettingMetric = Callable[[Evidence, Evidence | None, Literal["before", "after"]], list[Metric]]
"""(evidence of this model, evidence of the model before or None, moment) to metrics."""

metrics: Registry[ForgettingMetric] = Registry("metrics")
