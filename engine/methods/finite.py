"""The last look at a model that was changed outside the training loop: does it still answer?"""

import torch

from engine.errors import NonFiniteLoss
from engine.families.base import PairModel
from engine.unlearning import Unlearning

LOOKED_AT = 64
"""Retained pairs on which the model must give finite numbers."""


def require_answers(run: Unlearning, model: PairModel, cause: str, advice: str) -> None:
    """Raise `NonFiniteLoss` when scores or outputs of a model are not finite.

    Args:
        run: the unlearning run.
        model: the changed model.
        cause: what changed it, to begin a sentence with.
        advice: what to do, after a semicolon.
    """
    rows = run.retain[:LOOKED_AT]
    for answer in (run.task.scores, run.task.outputs):
        run.monitor.check()
        if not torch.isfinite(answer(model, run.inputs, rows)).all():
            raise NonFiniteLoss(
                f"{cause} leaves a model without finite scores; {advice}; nothing was saved"
            )
