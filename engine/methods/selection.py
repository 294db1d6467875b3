"""Which epoch of an unlearning run is kept: the one that forgot most without losing utility."""

from typing import TYPE_CHECKING

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from engine.unlearning import Unlearning, draw

if TYPE_CHECKING:
    from engine.families.base import PairModel

SAMPLE = 512
"""Most deleted and most retained pairs whose scores are compared at each validation."""


class ForgettingSelection:
    """Scores a student on validation utility and on how unrelated the deleted pairs look.

    Utility is measured on validation pairs and forgetting on training pairs: never on test.

    Args:
        run: the unlearning run.
        tolerance: points of 100 of validation utility that may be lost.
        target: D_f at which deleted pairs look unrelated enough; beyond it utility decides.
        generator: draws the pairs that are compared.
    """

    def __init__(
        self, run: Unlearning, tolerance: float, target: float, generator: torch.Generator
    ) -> None:
        self.run = run
        self.tolerance = tolerance
        self.target = target
        self.deleted = draw(run.forget, min(SAMPLE, len(run.forget)), generator)
        self.retained = draw(run.retain, min(SAMPLE, len(run.retain)), generator)
        self.before = self._utility(run.teacher)

    def score(self, student: "PairModel") -> float:
        """Return how good the student is; higher is better. See `rank`."""
        lost = self.before - self._utility(student)
        forgotten = 0.0 if lost > self.tolerance else self._forgetting(student)
        return rank(lost, forgotten, self.tolerance, self.target)

    def _utility(self, model: "PairModel") -> float:
        if not len(self.run.validation):
            return 0.0
        with torch.no_grad():
            return self.run.task.validate(model, self.run.inputs, self.run.validation)

    def _forgetting(self, model: "PairModel") -> float:
        """Return D_f = 100 (1 - AUC), retained pairs being the positives."""
        scores = torch.cat([self._scores(model, self.retained), self._scores(model, self.deleted)])
        positive = torch.arange(len(scores)) < len(self.retained)
        return 100.0 * (1.0 - float(roc_auc_score(positive.numpy(), scores.numpy())))

    def _scores(self, model: "PairModel", rows: Tensor) -> Tensor:
        with torch.no_grad():
            parts = [self.run.task.scores(model, self.run.inputs, part) for part in rows.split(128)]
        return torch.cat(parts).double().cpu()


def rank(lost: float, d_f: float, tolerance: float, target: float) -> float:
    """Return the selection score of a student, higher is better.

    Students that lost more than ``tolerance`` come last, ordered by their loss. The others are
    ordered by D_f down to ``target``, and those that reached it by their loss.

    Args:
        lost: points of validation utility lost; negative for a gain.
        d_f: D_f of the student, 0 to 100.
        tolerance: points that may be lost.
        target: D_f that is enough.
    """
    if lost > tolerance:
        return -lost
    # The loss only separates students whose D_f counts as equal: it weighs a hundredth.
    return 100.0 - max(d_f, target) - lost / 100
