"""DtD, descent to delete (Neel et al. 2021, the paper's [50]): a few steps on D_r, then noise.

For a loss that is L-Lipschitz, m-strongly convex and M-smooth over n pairs, I steps of gradient
descent on D_r come as near to the minimum without D_f as Gaussian noise of standard deviation

    sigma = 4 sqrt(2) L g^I / (m n (1 - g^I) (sqrt(ln(1/delta) + epsilon) - sqrt(ln(1/delta))))
    g = (M - m) / (M + m)

needs to hide the difference, up to (epsilon, delta) (Neel et al., the theorem on their basic
algorithm).

Mapping: L = 1 + wd, M = 4 - wd, m = wd, epsilon = 5, delta = 1 / n^2, with wd the weight decay and
n the pairs that the model was trained on, |D_r| + |D_f|. The steps are those of the one loop on
batches of D_r. The loss of a transformer is not convex: the formula gives the size of the noise,
and no guarantee. Only weights that ``update`` selects get noise.
"""

import math
from collections.abc import Sequence
from contextlib import ExitStack

import torch
from pydantic import Field
from torch import Tensor

from engine.families.base import PairModel
from engine.methods.base import REPEATED, Method, MethodParams, applies_everywhere, methods
from engine.methods.finite import require_answers
from engine.tasks.base import TrainingRecipe
from engine.training import Schedule, epoch_seed
from engine.unlearning import Unlearning

EPSILON = 5.0


class DtDParams(MethodParams):
    """Steps on D_r; the noise follows from them."""

    steps: int = Field(
        default=10,
        ge=1,
        le=100_000,
        description="I, steps on D_r; the noise shrinks by (M - m) / (M + m) with each",
    )
    learning_rate: float | None = Field(
        default=None, gt=0, le=1, description="instead of the original's"
    )
    batch_size: int = Field(default=64, ge=2, le=4096, description="retained pairs in a step")
    weight_decay: float = Field(
        default=0.01, gt=0, le=1, description="wd: of matrices, and m in the noise's formula"
    )


def noise_scale(steps: int, pairs: int, weight_decay: float) -> float:
    """Return sigma, the standard deviation of the noise (see the module's formula).

    Args:
        steps: I, at least 1.
        pairs: n, at least 2.
        weight_decay: wd, above 0 and at most 1.
    """
    lipschitz, smooth, convex = 1 + weight_decay, 4 - weight_decay, weight_decay
    contraction = ((smooth - convex) / (smooth + convex)) ** steps
    log_delta = 2 * math.log(pairs)  # ln(1 / delta), delta = 1 / n^2
    privacy = math.sqrt(log_delta + EPSILON) - math.sqrt(log_delta)
    numerator = 4 * math.sqrt(2) * lipschitz * contraction
    return numerator / (convex * pairs * (1 - contraction) * privacy)


class Descent:
    """A given number of steps of the task's loss on D_r.

    Args:
        run: the unlearning run.
        student: the model to change.
        params: number of steps and size of a batch.
    """

    def __init__(self, run: Unlearning, student: PairModel, params: DtDParams) -> None:
        self.run, self.student, self.params = run, student, params
        self.per_epoch = len(self._pass(torch.Generator()))

    def _pass(self, generator: torch.Generator) -> list[Tensor]:
        run, size = self.run, self.params.batch_size
        return list(run.task.batches(run.inputs, run.retain, size, generator))

    def batches(self, epoch: int, generator: torch.Generator) -> Sequence[Tensor]:
        """Go through D_r once, or as far as steps are left."""
        return self._pass(generator)[: self.params.steps - epoch * self.per_epoch]

    def loss(self, batch: Tensor) -> dict[str, Tensor]:
        """Return the task's terms on pairs of D_r ``(B,)``."""
        return self.run.task.loss(self.student, self.run.inputs, batch)

    def validate(self) -> float:
        """Return 0: the last step is the result, and nothing is chosen."""
        return 0.0

    def schedule(self, recipe: TrainingRecipe) -> Schedule:
        """Return as many passes as the steps need, validated at the end alone."""
        epochs = -(-self.params.steps // self.per_epoch)
        return Schedule(
            epochs=epochs,
            learning_rate=self.params.learning_rate or recipe.learning_rate,
            weight_decay=self.params.weight_decay,
            validate_every=epochs,
            dropout=True,
        )


@torch.no_grad()
def add_noise(model: PairModel, scale: float, seed: int) -> None:
    """Add Gaussian noise of standard deviation ``scale`` to every parameter that is trained.

    It is drawn on the CPU, so that a seed gives the same noise on every device.
    """
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator) * scale
            parameter.add_(noise.to(parameter))


def _run(run: Unlearning) -> PairModel:
    params = run.parameters_as(DtDParams)
    student = run.student()
    descent = Descent(run, student, params)
    scale = noise_scale(params.steps, len(run.retain) + len(run.forget), params.weight_decay)
    with ExitStack() as stack:
        if run.update == "fusion":
            stack.enter_context(run.inputs.freeze(student))
        run.fit(student, descent, descent.schedule(run.recipe or run.task.recipe()))
        add_noise(student, scale, epoch_seed(run.seed, "noise", 0))
        cause = f"noise of standard deviation {scale:g}"
        require_answers(run, student, cause, "take more steps, which makes it smaller")
    return student


methods.register("dtd")(
    Method(
        name="dtd",
        summary="Takes a few training steps on the retained pairs and adds Gaussian noise to the "
        "weights.",
        guarantee="approximate",
        scopes=frozenset({"association"}),
        params=DtDParams,
        refusal=applies_everywhere,
        limitations=(
            (
                "Its guarantee holds for strongly convex losses alone; the loss of this model is "
                "not convex, so that the method is approximate here and nothing is proved."
            ),
            (
                "The noise is not aimed at the deleted pairs: it blurs everything that the model "
                "knows, and with few steps leaves little of it."
            ),
            REPEATED,
        ),
        run=_run,
    )
)
