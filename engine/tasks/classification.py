"""What every task with labels shares: cross-entropy, the true class's probability, accuracy, F1."""

import torch
from torch import Tensor
from torch.nn import functional

from engine.families.base import PairModel
from engine.inputs import Inputs, still
from engine.shares import fused
from engine.spec import Metric
from engine.tasks.accuracy import classification_metrics
from engine.tasks.base import Task, require_finite

BATCH = 256
"""Pairs that are classified at once when nothing is trained."""


class Classification(Task):
    """Cross-entropy on C classes; the pair score is the probability of the true class."""

    labelled = True

    @classmethod
    def refusal(cls, family: type[PairModel]) -> str | None:
        """See `Task.refusal`; a class head is needed."""
        reason = super().refusal(family)
        if reason is None and not family.classifies:
            return f"{cls.name} needs a class head, and {family.family} has none"
        return reason

    def loss(self, model: PairModel, inputs: Inputs, rows: Tensor) -> dict[str, Tensor]:
        """Return ``class``: the cross-entropy of the labels of ``rows`` ``(B,)``, in nats."""
        logits = fused(model, *inputs.encode(model, rows)).logits
        labels = inputs.labels[rows].to(logits.device)
        return {"class": functional.cross_entropy(logits, labels)}

    def outputs(self, model: PairModel, inputs: Inputs, rows: Tensor) -> Tensor:
        """Return class probabilities ``(B, C)`` on the CPU."""
        made = []
        with still(model):
            for part in rows.split(BATCH):
                logits = fused(model, *inputs.encode(model, part)).logits
                made.append(logits.float().softmax(-1).cpu())
        return torch.cat(made)

    def scores(self, model: PairModel, inputs: Inputs, rows: Tensor) -> Tensor:
        """Return the probability ``(B,)`` of the true class."""
        chances = self.outputs(model, inputs, rows)
        return chances.gather(1, inputs.labels[rows, None])[:, 0]

    def _chances(self, model: PairModel, inputs: Inputs, rows: Tensor) -> Tensor:
        """Return `outputs`, of which each row has a greatest: raises `NonFiniteLoss` otherwise."""
        chances = self.outputs(model, inputs, rows)
        require_finite(chances, "probabilities of classes")
        return chances

    def trials(self, model: PairModel, inputs: Inputs, rows: Tensor) -> tuple[Tensor, ...]:
        """Return 100 for each pair ``(n,)`` whose class was found, and 0 for the others."""
        if not len(rows):
            return ()
        predicted = self._chances(model, inputs, rows).argmax(-1)
        return (100 * (predicted == inputs.labels[rows]).double(),)

    def utility(self, model: PairModel, inputs: Inputs, rows: Tensor) -> list[Metric]:
        """Return ``d_test`` (accuracy) and ``f1`` (class 1 of two; the mean if more than two)."""
        if not len(rows):
            return classification_metrics(None, None, self.classes)
        chances = self._chances(model, inputs, rows)
        names = self.classes or tuple(str(number) for number in range(chances.shape[1]))
        truth, guess = inputs.labels[rows].numpy(), chances.argmax(-1).numpy()
        return classification_metrics(truth, guess, names)
