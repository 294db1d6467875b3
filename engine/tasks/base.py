"""What a task is: a training loss, a score of a pair, an output distribution and a test metric."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from engine.errors import DataError, InvalidSpec, NonFiniteLoss
from engine.registry import Registry
from engine.spec import Keep, Metric, Modality

if TYPE_CHECKING:
    from engine.data.pairs import PairDataset
    from engine.families.base import PairModel
    from engine.inputs import Inputs


LEAST_CLASSES = 2
"""Of a task with labels: with one class there is nothing to tell apart."""


Epochs = Annotated[int, Field(ge=1, le=10_000)]
BatchSize = Annotated[int, Field(ge=2, le=65_536)]
LearningRate = Annotated[float, Field(gt=0, le=1)]


class TrainingRecipe(BaseModel):
    """How an original is trained (and retrained): the task's loss on its training split."""

    model_config = ConfigDict(extra="forbid")

    epochs: Epochs = 20
    batch_size: BatchSize = 64
    learning_rate: LearningRate = 1e-3
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    warmup: float = Field(default=0.1, ge=0, le=1, description="share of the steps")
    patience: int | None = Field(
        default=None, ge=1, le=10_000, description="epochs without a better validation score"
    )
    keep: Keep = Field(
        default="best",
        description="the epoch whose weights are kept: the best on validation pairs, or the last. The "
        "best of many is partly luck on those pairs, which any later change of the model loses",
    )

    @model_validator(mode="after")
    def _patience_has_scores(self) -> Self:
        if self.keep == "last" and self.patience is not None:
            raise ValueError("patience compares validation scores; leave it out where keep is last")
        return self


class Task(ABC):
    """One task. ``rows`` are indices into `Inputs`, the prepared pairs of a data set."""

    name: ClassVar[str]
    modalities: ClassVar[tuple[Modality, ...]]
    contrastive: ClassVar[bool] = False
    """Whether it needs a family with `project`."""
    items_per_pair: ClassVar[int] = 1
    """How many images or graphs each pair has."""
    least_items: ClassVar[int] = 1
    """How many distinct images or graphs there must be."""
    labelled: ClassVar[bool] = False
    """Whether every pair needs a label."""
    classes: ClassVar[tuple[str, ...]] = ()
    """Names of the classes, in the order of their numbers; empty: as many as the data have."""
    recipe: ClassVar[type[TrainingRecipe]] = TrainingRecipe

    @classmethod
    def refusal(cls, family: "type[PairModel]") -> str | None:
        """Return why ``family`` cannot do this task, or None when it can."""
        if family.modality not in cls.modalities:
            wanted = " or ".join(cls.modalities)
            return f"{cls.name} needs {wanted} data, and {family.family} reads {family.modality}s"
        if cls.contrastive and not family.contrastive:
            return f"{cls.name} ranks by a similarity, and {family.family} has none"
        if cls.items_per_pair not in family.item_counts:
            kind = _counted(cls.items_per_pair, family.modality)
            return f"{cls.name} has {kind} a pair, and {family.family} cannot read them together"
        return None

    def configure(self, recipe: TrainingRecipe) -> None:
        """Take from a model's training recipe what it says about measuring the model."""
        del recipe  # a task that has such a setting overrides this

    def check(self, dataset: "PairDataset") -> None:
        """Refuse a data set that does not fit the task.

        The service refuses it by the same facts, which it has from the catalogue.

        Raises:
            InvalidSpec: the data set as a whole is for another task.
            DataError: one of its pairs is not as the others; the message names it.
        """
        for pair in dataset.pairs:
            if len(pair.items) != self.items_per_pair:
                wanted = _counted(self.items_per_pair, dataset.modality)
                reason = (
                    f"pair {pair.id!r} has {len(pair.items)}; {self.name} needs {wanted} a pair"
                )
                raise DataError(reason, file=dataset.name, line=pair.line)
        found = len({reference for pair in dataset.pairs for reference in pair.items})
        if found < self.least_items:
            wanted = _counted(self.least_items, dataset.modality)
            raise InvalidSpec(
                f"{self.name} needs {wanted} at least, and data set {dataset.name} has {found}"
            )
        if self.labelled:
            self._check_labels(dataset)

    def _check_labels(self, dataset: "PairDataset") -> None:
        if dataset.classes is None:
            raise InvalidSpec(f"{self.name} needs labels, and data set {dataset.name} has none")
        count = len(self.classes) or dataset.classes
        named = f" ({', '.join(self.classes)})" if self.classes else ""
        for pair in dataset.pairs:
            if pair.label is None or not 0 <= pair.label < count:
                raise DataError(
                    f"pair {pair.id!r} has label {pair.label}; {self.name} needs 0 to {count - 1}"
                    f"{named}",
                    file=dataset.name,
                    line=pair.line,
                )
        least = len(self.classes) or LEAST_CLASSES
        if dataset.classes < least:
            raise InvalidSpec(
                f"{self.name} has {least} classes{named or ' at least'}, and no pair of data set "
                f"{dataset.name} has a label above {dataset.classes - 1}"
            )

    def batches(
        self, inputs: "Inputs", rows: Tensor, batch_size: int, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """Cut one epoch over ``rows`` ``(N,)`` into shuffled batches ``(<= batch_size + 1,)``."""
        del inputs  # a task that looks at its pairs overrides this
        return cut(rows[torch.randperm(len(rows), generator=generator)], batch_size)

    @abstractmethod
    def trials(self, model: "PairModel", inputs: "Inputs", rows: Tensor) -> tuple[Tensor, ...]:
        """Return what `validate` is the mean of, which tells how much of a difference is chance.

        Groups ``(n_g,)`` of points of 100, one for each pair or query and the same ones for every
        model: `validate` is the mean of their means. It may be cheaper than `utility`. Without rows
        there are none.
        """

    def validate(self, model: "PairModel", inputs: "Inputs", rows: Tensor) -> float:
        """Return a score on validation ``rows`` that compares epochs; higher is better.

        It is in points of 100; minus infinity without rows.
        """
        groups = self.trials(model, inputs, rows)
        return float(mean_of_groups(groups)) if groups else float("-inf")

    @abstractmethod
    def loss(self, model: "PairModel", inputs: "Inputs", rows: Tensor) -> dict[str, Tensor]:
        """Return terms of the training loss on pairs ``rows`` ``(B,)``, to be summed."""

    @abstractmethod
    def outputs(self, model: "PairModel", inputs: "Inputs", rows: Tensor) -> Tensor:
        """Return ``(B, C)`` probabilities, the black-box output that a membership attack sees."""

    @abstractmethod
    def scores(self, model: "PairModel", inputs: "Inputs", rows: Tensor) -> Tensor:
        """Return ``(B,)``: how related the model thinks each pair is (engine: "pair score")."""

    @abstractmethod
    def utility(self, model: "PairModel", inputs: "Inputs", rows: Tensor) -> list[Metric]:
        """Measure the model on ``rows`` ``(N,)``; the first metric is D_test, in points of 100.

        The metrics say moment ``after`` and subset ``test``; a caller that measures something else
        changes these two with `Metric.model_copy`.
        """


def _counted(count: int, modality: Modality) -> str:
    return f"{count} {modality}{'s' if count > 1 else ''}"


def mean_of_groups(groups: Sequence[Tensor]) -> Tensor:
    """Return the mean of the means of groups ``(n_g,)``."""
    return torch.stack([group.mean() for group in groups]).mean()


def require_finite(numbers: Tensor, what: str) -> None:
    """Raise `NonFiniteLoss` when NaN or infinity is among ``numbers``: no rank compares with them.

    Args:
        numbers: what a model says of pairs, in any shape.
        what: their name, to begin a sentence with.
    """
    broken = int(torch.isfinite(numbers).logical_not().sum())
    if broken:
        raise NonFiniteLoss(
            f"{what} must be finite, and {broken} of {numbers.numel()} are not: the model diverged; "
            "lower the learning rate or the weights of the loss; nothing was saved"
        )


def cut(rows: Tensor, batch_size: int) -> Iterator[Tensor]:
    """Cut ``rows`` ``(N,)`` into batches of ``batch_size``.

    A last batch of one row joins the batch before it: one pair alone has no negative.
    """
    batches = list(rows.split(batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return iter(batches)


tasks: Registry[type[Task]] = Registry("tasks", Task)
