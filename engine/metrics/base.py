"""What a metric is: a function of a model's scores and outputs on named sets of pairs.

Metrics know no family and no task: they see arrays. `engine.audit` collects the arrays once a model
and hands them to every registered metric.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from engine.registry import Registry
from engine.spec import Metric

Floats = NDArray[np.float64]
Vectors = NDArray[np.float32]
Labels = NDArray[np.int64]
Rows = NDArray[np.intp]
Moment = Literal["before", "after"]
T = TypeVar("T")

NO_REFERENCES = "no reference models were trained; ask for them with reference_models"


@dataclass(frozen=True)
class Observed:
    """What one model says of one set of n pairs: ``scores`` ``(n,)`` and ``outputs`` ``(n, C)``."""

    scores: Floats
    outputs: Floats
    labels: Labels | None = None

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class Embedded:
    """Pooled unimodal embeddings of n pairs: ``items`` ``(n, d_V)`` by f_V, ``texts`` by f_L."""

    items: Vectors
    texts: Vectors
    labels: Labels | None = None

    def __len__(self) -> int:
        return len(self.items)


NOT_EMBEDDED = Embedded(np.zeros((0, 1), np.float32), np.zeros((0, 1), np.float32))


@dataclass(frozen=True)
class ReferenceScores:
    """Scores of n pairs by the model under attack and by K reference models.

    Attributes:
        target: by the model under attack ``(n,)``.
        references: by each reference model ``(K, n)``.
        inside: whether that reference model learned the pair ``(K, n)``.
        member: whether the model under attack learned the pair ``(n,)``.
        labels: of the pairs ``(n,)``, -1 where there is none; None where the task has no labels.
    """

    target: Floats
    references: Floats
    inside: NDArray[np.bool_]
    member: NDArray[np.bool_]
    labels: Labels | None = None


References = Mapping[str, ReferenceScores] | str
"""By group of pairs (``forget``, ``retained``), or the reason why there are none."""


@dataclass(frozen=True)
class Evidence:
    """One model's observations that the metrics of one subset need.

    Attributes:
        subset: name of the deleted subset: ``forget``, ``forgotten`` or ``request:<id>``.
        deleted: its pairs (D_f).
        retained: a random sample of D_r, at least five times D_f where there are so many.
        validation: held-out validation pairs. No loss of an original knows them, but epochs are chosen by
            them, and a method may hold some of them in place.
        unseen: held-out pairs that neither training nor unlearning reads: test pairs, or validation
            pairs where there are no test pairs.
        seed: of every random choice.
        deleted_vectors: unimodal embeddings of D_f.
        retained_vectors: unimodal embeddings of a random sample of D_r.
        references: what reference models say, for the attack on each pair.
        kept: what metrics made that does not depend on the subset; see `once`.
    """

    subset: str
    deleted: Observed
    retained: Observed
    validation: Observed
    unseen: Observed
    seed: int
    deleted_vectors: Embedded = NOT_EMBEDDED
    retained_vectors: Embedded = NOT_EMBEDDED
    references: References = NO_REFERENCES
    kept: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Return ``make()``, called once for all subsets of a model.

        It may only use what the subsets have in common: everything but ``deleted`` and its vectors.
        """
        if name not in self.kept:
            self.kept[name] = make()
        made: T = self.kept[name]
        return made


ForgettingMetric = Callable[[Evidence, Evidence | None, Moment], list[Metric]]
"""(evidence of this model, evidence of the model before or None, moment) to metrics."""

metrics: Registry[ForgettingMetric] = Registry("metrics")
