"""Classification of (graph, text) pairs: does the text state a relation of the two nodes?"""

import numpy as np
import torch
from pydantic import Field
from sklearn.metrics import f1_score
from torch import Tensor
from torch.nn import functional

from engine.data.pairs import PairDataset
from engine.errors import DataError, InvalidSpec
from engine.families.base import PairModel
from engine.inputs import Inputs, still
from engine.spec import Metric
from engine.tasks.base import Task, TrainingRecipe, tasks
from engine.tasks.intervals import RESAMPLES, wilson

BATCH = 256
"""Pairs that are classified at once when nothing is trained."""


class GraphTextRecipe(TrainingRecipe):
    """Defaults for a few thousand pairs."""

    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=64, ge=2)
    learning_rate: float = Field(default=5e-4, gt=0)


@tasks.register("graph_text")
class GraphText(Task):
    """Cross-entropy on C classes; the pair score is the probability of the true class."""

    name = "graph_text"
    modalities = ("graph",)
    recipe = GraphTextRecipe

    def check(self, dataset: PairDataset) -> None:
        """Every pair needs a label below ``classes``."""
        if dataset.classes is None:
            raise InvalidSpec(f"{self.name} needs labels, and data set {dataset.name} has none")
        for pair in dataset.pairs:
            if pair.label is None or not 0 <= pair.label < dataset.classes:
                raise DataError(
                    f"pair {pair.id!r} has label {pair.label}; "
                    f"{self.name} needs 0 to {dataset.classes - 1}"
                )

    def loss(self, model: PairModel, inputs: Inputs, rows: Tensor) -> dict[str, Tensor]:
        """Return ``class``: the cross-entropy of the labels of ``rows`` ``(B,)``, in nats."""
        logits = model.fuse(*inputs.encode(model, rows)).logits
        labels = inputs.labels[rows].to(logits.device)
        return {"class": functional.cross_entropy(logits, labels)}

    def outputs(self, model: PairModel, inputs: Inputs, rows: Tensor) -> Tensor:
        """Return class probabilities ``(B, C)`` on the CPU."""
        made = []
        with still(model):
            for part in rows.split(BATCH):
                logits = model.fuse(*inputs.encode(model, part)).logits
                made.append(logits.float().softmax(-1).cpu())
        return torch.cat(made)

    def scores(self, model: PairModel, inputs: Inputs, rows: Tensor) -> Tensor:
        """Return the probability ``(B,)`` of the true class."""
        chances = self.outputs(model, inputs, rows)
        return chances.gather(1, inputs.labels[rows, None])[:, 0]

    def validate(self, model: PairModel, inputs: Inputs, rows: Tensor) -> float:
        """Return the accuracy in points of 100."""
        predicted = self.outputs(model, inputs, rows).argmax(-1)
        return 100 * float((predicted == inputs.labels[rows]).double().mean())

    def utility(self, model: PairModel, inputs: Inputs, rows: Tensor) -> list[Metric]:
        """Return ``d_test`` (accuracy) and ``f1`` (class 1; the mean if more than two)."""
        if not len(rows):
            return [_unmeasured("d_test"), _unmeasured("f1")]
        chances = self.outputs(model, inputs, rows)
        truth, guess = inputs.labels[rows].numpy(), chances.argmax(-1).numpy()
        return [_accuracy(truth, guess), _f1(truth, guess, chances.shape[1])]


def _accuracy(truth: np.ndarray, guess: np.ndarray) -> Metric:
    right, n = int((truth == guess).sum()), len(truth)
    low, high = wilson(right, n)
    return Metric(
        name="d_test",
        moment="after",
        subset="test",
        value=100 * right / n,
        interval=(100 * low, 100 * high),
        n=n,
        direction="higher",
        unit="points",
        details={"measure": "accuracy", "interval": "Wilson"},
    )


def _f1_of_cells(cells: np.ndarray, draws: np.ndarray, average: str) -> np.ndarray:
    """Return F1 ``(R,)`` of R tables of counts ``(R, K)`` over K cells ``(2, K)`` of truth and guess.

    As scikit-learn's `f1_score`, which takes one table at a time and a thousand times as long.
    """
    labels = np.array([1]) if average == "binary" else np.unique(cells)
    true, guessed = cells[0] == labels[:, None], cells[1] == labels[:, None]
    hits = draws @ (true & guessed).T
    named = draws @ true.T + draws @ guessed.T
    mean: np.ndarray = np.mean(2 * hits / np.maximum(named, 1), axis=1)
    return mean


def _f1(truth: np.ndarray, guess: np.ndarray, classes: int) -> Metric:
    average = "binary" if classes == 2 else "macro"
    # Cells of the confusion matrix are all that F1 needs, so that resamples are drawn from them.
    cells, counts = np.unique(np.stack([truth, guess]), axis=1, return_counts=True)
    draws = np.random.default_rng(0).multinomial(len(truth), counts / len(truth), RESAMPLES)
    low, high = np.percentile(_f1_of_cells(cells, draws, average), [2.5, 97.5])
    return Metric(
        name="f1",
        moment="after",
        subset="test",
        value=100 * float(f1_score(truth, guess, average=average, zero_division=0.0)),
        interval=(100 * float(low), 100 * float(high)),
        n=len(truth),
        direction="higher",
        unit="points",
        details={"average": average, "interval": "bootstrap"},
    )


def _unmeasured(name: str) -> Metric:
    return Metric(
        name=name,
        moment="after",
        subset="test",
        value=None,
        n=0,
        direction="higher",
        unit="points",
        unavailable="there is no pair to measure",
    )
