"""Gradient ascent on the deleted pairs, which NegGrad and UL share.

The loss of the task on D_f is raised instead of lowered. It has no upper end, so a batch whose loss
is beyond a ceiling gives no gradient: the weights stay where they are instead of diverging.
"""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from engine.errors import NonFiniteLoss, NotApplicable
from engine.families.base import PairModel
from engine.methods.base import MethodParams
from engine.training import FitReport, Schedule
from engine.unlearning import Unlearning

VALIDATIONS = 20
"""Validations in a run at most, spread evenly: ascent passes its best moment within few steps."""


class AscentParams(MethodParams):
    """Length, speed and ceiling of an ascent."""

    epochs: int = Field(default=20, ge=1, le=10_000, description="most passes over D_f")
    least_steps: int = Field(
        default=40, ge=0, le=100_000, description="steps allowed even when D_f is small"
    )
    rate_factor: float = Field(
        default=0.1, gt=0, le=1000, description="times the learning rate of the original"
    )
    learning_rate: float | None = Field(
        default=None, gt=0, le=1, description="instead of the factor times the original's"
    )
    batch_size: int = Field(default=32, ge=2, le=4096, description="deleted pairs in a step")
    ceiling: float = Field(
        default=20.0, gt=0, le=1000, description="loss of a batch, in nats, that is high enough"
    )
    weight_decay: float = Field(default=0.0, ge=0, le=1, description="of matrices")


class Ascent:
    """The loss of the task on D_f with its sign turned; a method adds `validate`.

    Args:
        run: the unlearning run.
        student: the model to change.
        params: the ceiling and the size of a batch.

    Raises:
        NotApplicable: the loss has no gradient, see `require_contrast`.
    """

    def __init__(self, run: Unlearning, student: PairModel, params: AscentParams) -> None:
        require_contrast(run)
        self.run, self.student, self.params = run, student, params

    def batches(self, epoch: int, generator: torch.Generator) -> Sequence[Tensor]:
        """Cut D_f as the task wants it."""
        del epoch
        run = self.run
        return list(run.task.batches(run.inputs, run.forget, self.params.batch_size, generator))

    def loss(self, batch: Tensor) -> dict[str, Tensor]:
        """Return the negative terms of the task on pairs ``(B,)``; beyond the ceiling, a zero."""
        terms = self.run.task.loss(self.student, self.run.inputs, batch)
        total = torch.stack(list(terms.values())).sum()
        if torch.isfinite(total) and total <= self.params.ceiling:
            return {f"negative_{name}": -term for name, term in terms.items()}
        return {"at_the_ceiling": torch.zeros((), device=total.device, requires_grad=True)}

    def schedule(self, patience: int | None = None) -> Schedule:
        """Return how long to climb at most; ``patience`` counts validations."""
        params, run = self.params, self.run
        per_epoch = -(-len(run.forget) // params.batch_size)
        epochs = max(params.epochs, -(-params.least_steps // per_epoch))
        every = max(1, epochs // VALIDATIONS)
        original = run.recipe or run.task.recipe()
        return Schedule(
            epochs=epochs,
            learning_rate=params.learning_rate or params.rate_factor * original.learning_rate,
            weight_decay=params.weight_decay,
            validate_every=every,
            patience=None if patience is None else patience * every,
        )

    @torch.no_grad()
    def scores(self, rows: Tensor) -> Tensor:
        """Return the student's pair scores ``(B,)`` on the CPU."""
        parts = [self.run.task.scores(self.student, self.run.inputs, p) for p in rows.split(128)]
        return torch.cat(parts).double().cpu()


def check_usable(report: FitReport) -> None:
    """Raise `NonFiniteLoss` when no epoch of an ascent gave a model that can be used."""
    if report.best_score == float("-inf"):
        raise NonFiniteLoss(
            "after every epoch of the ascent the scores of the pairs were not finite; lower the "
            "learning rate or the ceiling; nothing was saved"
        )


def require_contrast(run: Unlearning) -> None:
    """Raise `NotApplicable` when the loss on D_f is the same whatever the weights are.

    A contrastive loss compares the pairs of a batch, and of one pair alone it is 0; a model with a
    match head has that to learn from.
    """
    if run.task.contrastive and not run.teacher.matching and len(run.forget) < 2:
        raise NotApplicable(
            "this method changes weights by the loss of the deleted pairs, and a single pair has "
            f"none that {run.teacher.family} could learn from: it has no other to be contrasted "
            "with; forget it together with other pairs, or choose another method"
        )
