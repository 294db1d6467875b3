"""ERM-KTP (Lin et al. 2023, the paper's [41]): masks that disentangle, then knowledge transfer.

Two trainings, both from the initial weights:

1. *Entanglement-reduced masks* (ERM). Behind the visual features stands a mask (C, d) with a row
   for each of C classes. On D_r and D_f, every third batch has its features multiplied with the row
   of each pair's class, and its loss is

       L(masked) + disentangle * (density + overlap)

   with density the mean of the mask, and overlap the mean product of two classes' rows. So each
   feature comes to serve few classes.
2. *Knowledge transfer and prohibition* (KTP). The student sees D_r alone. Beside the loss of the
   task it comes near the masked features, and the readouts made of them, of the first model:

       L + transfer * ( ||f'_V(I) - m_class * f_V(I)||^2 + ||R' - R||^2 )    (means)

Mapping: classes are the labels of the task; in retrieval, which has none, they are "retain" and
"forget", so that what serves D_f alone is masked out of what is transferred. The row of a class is
exp(theta_c - max theta): each feature serves one class fully, as in the source, where the mask is
divided by its largest row after every step. The masks serve training alone: the student is an
ordinary model of its family, and nothing has to be folded into its weights. Pairs that were
forgotten earlier are in neither training.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from engine.errors import NotApplicable
from engine.families.base import Encoding, PairModel, families
from engine.inputs import Inputs
from engine.methods.base import REPEATED, Method, MethodParams, methods
from engine.shares import fused
from engine.spec import Update
from engine.tasks.base import Task, TrainingRecipe
from engine.training import epoch_seed, recipe_schedule
from engine.unlearning import Unlearning


class ErmKtpParams(MethodParams):
    """Weights of the masks and of the transfer; both trainings follow the original's recipe."""

    disentangle: float = Field(
        default=1.0, ge=0, le=1000, description="weight of density and overlap of the masks"
    )
    masked_every: int = Field(
        default=3, ge=1, le=100, description="of so many batches one goes through the masks"
    )
    transfer: float = Field(
        default=1.0,
        ge=0,
        le=1000,
        description="weight of knowledge transfer beside the task's loss",
    )
    transfer_epochs: int | None = Field(
        default=None, ge=1, le=10_000, description="of the transfer; null: as many as the recipe's"
    )


class FeatureMasks(nn.Module):
    """A mask over d features for each of C classes, between 0 and 1.

    Args:
        classes: C.
        width: d.
        seed: of the small differences between classes that training starts from.
    """

    def __init__(self, classes: int, width: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.logits = nn.Parameter(0.01 * torch.randn(classes, width, generator=generator))

    def values(self) -> Tensor:
        """Return the masks ``(C, d)``; the largest value of each feature is 1."""
        return (self.logits - self.logits.amax(0)).exp()

    def forward(self, items: Encoding, classes: Tensor) -> Encoding:
        """Return features of items multiplied with the masks of their ``classes`` ``(B,)``."""
        masks = self.values()[classes.to(self.logits.device)]
        joined = items.pooled.shape[1] // masks.shape[1]  # images of a pair stand side by side
        return Encoding(
            items.tokens * masks[:, None], items.mask, items.pooled * masks.repeat(1, joined)
        )

    def entanglement(self) -> Tensor:
        """Return density plus overlap, a scalar between 1 / C and 2."""
        masks = self.values()
        products = (masks @ masks.T / masks.shape[1]).triu(diagonal=1)
        pairs = len(masks) * (len(masks) - 1) / 2
        return masks.mean() + products.sum() / max(pairs, 1)


class MaskedInputs(Inputs):
    """The same prepared pairs, with item features behind the masks.

    Args:
        inputs: whose prepared pairs are used; nothing is prepared again.
        masks: a row for each class.
        classes: ``(N,)`` class of each pair of the data set.
    """

    def __init__(self, inputs: Inputs, masks: FeatureMasks, classes: Tensor) -> None:
        vars(self).update(vars(inputs))
        self.masks = masks
        self.classes = classes

    def encode_items_of(self, model: PairModel, rows: Tensor) -> Encoding:
        """See `Inputs.encode_items_of`; each pair's items go through the mask of its class."""
        masked: Encoding = self.masks(super().encode_items_of(model, rows), self.classes[rows])
        return masked


@dataclass(frozen=True)
class Batch:
    """Pairs of one step ``(B,)``, and whether they go through the masks."""

    rows: Tensor
    masked: bool

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Disentangling:
    """The first objective: the task's loss on D_r and D_f, partly through the masks."""

    run: Unlearning
    model: PairModel
    inputs: Inputs
    masked: MaskedInputs
    recipe: TrainingRecipe
    params: ErmKtpParams

    def batches(self, epoch: int, generator: torch.Generator) -> Sequence[Batch]:
        """Cut D_r and D_f as the task wants it."""
        rows = torch.cat([self.run.retain, self.run.forget])
        parts = list(self.run.task.batches(self.inputs, rows, self.recipe.batch_size, generator))
        every = self.params.masked_every
        first = epoch * len(parts) + 1
        return [Batch(part, (first + at) % every == 0) for at, part in enumerate(parts)]

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the task's terms, and for a masked batch the entanglement of the masks."""
        if not batch.masked:
            return self.run.task.loss(self.model, self.inputs, batch.rows)
        terms = self.run.task.loss(self.model, self.masked, batch.rows)
        weight = self.params.disentangle
        return {**terms, "entanglement": weight * self.masked.masks.entanglement()}

    def validate(self) -> float:
        """Return the validation score without masks."""
        return _validate(self.run, self.model, self.inputs)


@dataclass(frozen=True)
class Transfer:
    """The second objective: the task's loss on D_r, near the masked features of the first model."""

    run: Unlearning
    student: PairModel
    inputs: Inputs
    first: PairModel
    masked: MaskedInputs
    recipe: TrainingRecipe
    weight: float

    def batches(self, epoch: int, generator: torch.Generator) -> Sequence[Tensor]:
        """Cut D_r as the task wants it."""
        del epoch
        size = self.recipe.batch_size
        return list(self.run.task.batches(self.inputs, self.run.retain, size, generator))

    def loss(self, rows: Tensor) -> dict[str, Tensor]:
        """Return the task's terms and the two of the transfer on pairs of D_r ``(B,)``."""
        with torch.no_grad():
            known = self.masked.encode(self.first, rows)
            target = fused(self.first, *known).readout
        mine = self.inputs.encode(self.student, rows)
        features = F.mse_loss(mine[0].pooled, known[0].pooled)
        readouts = F.mse_loss(fused(self.student, *mine).readout, target)
        return {
            **self.run.task.loss(self.student, self.inputs, rows),
            "features": self.weight * features,
            "readouts": self.weight * readouts,
        }

    def validate(self) -> float:
        """Return the validation score of the student."""
        return _validate(self.run, self.student, self.inputs)


def _validate(run: Unlearning, model: PairModel, inputs: Inputs) -> float:
    return run.task.validate(model, inputs, run.validation) if len(run.validation) else 0.0


def classes_of(task: Task, inputs: Inputs, forget: Tensor) -> Tensor:
    """Return the class of each pair ``(N,)``: its label, or 1 for D_f and 0 for the rest."""
    if not task.contrastive:
        return inputs.labels
    classes = torch.zeros(len(inputs), dtype=torch.int64)
    classes[forget] = 1
    return classes


def _masks(run: Unlearning, model: PairModel, inputs: Inputs, classes: Tensor) -> FeatureMasks:
    with torch.no_grad():
        width = inputs.encode_items_of(model, run.retain[:1]).tokens.shape[-1]
    count = int(classes.max()) + 1
    return FeatureMasks(count, width, epoch_seed(run.seed, "masks", 0)).to(model.device)


def _run(run: Unlearning) -> PairModel:
    params = run.parameters_as(ErmKtpParams)
    recipe = run.recipe
    if recipe is None:
        raise NotApplicable(
            "erm_ktp repeats the original's training with masks, and the checkpoint's card names no "
            "recipe; register the original with its recipe, or choose another method"
        )
    student, inputs = run.fresh()
    first = student.clone()
    classes = classes_of(run.task, inputs, run.forget)
    masks = _masks(run, first, inputs, classes)
    masked = MaskedInputs(inputs, masks, classes)
    first.set_trainable("all")
    schedule = recipe_schedule(recipe)
    run.fit(
        nn.ModuleDict({"model": first, "masks": masks}),
        Disentangling(run, first, inputs, masked, recipe, params),
        schedule,
        phase="masks",
    )
    student.set_trainable("all")
    epochs = params.transfer_epochs or recipe.epochs
    with inputs.freeze(first):
        transfer = Transfer(run, student, inputs, first, masked, recipe, params.transfer)
        run.fit(student, transfer, replace(schedule, epochs=epochs))
    return student


def _refusal(family: str, task: str, update: Update) -> str | None:
    del task
    if families.get(family).modality != "image":
        return "erm_ktp masks the features of images, and this family reads graphs"
    if update == "fusion":
        return (
            "erm_ktp retrains the whole model behind its visual features, so it cannot update the "
            "fusion module alone; use update = all"
        )
    return None


methods.register("erm_ktp")(
    Method(
        name="erm_ktp",
        summary="Retrains with masks that give visual features to classes, and transfers on the "
        "retained pairs what the masks let through.",
        guarantee="approximate",
        scopes=frozenset({"association"}),
        params=ErmKtpParams,
        refusal=_refusal,
        limitations=(
            (
                "The result is trained on retained pairs alone, but near the features of a model "
                "that saw the deleted ones: what passes the masks may carry traces of them."
            ),
            "It acts on visual features; what the text says of a deleted pair is not masked.",
            "It trains twice from the initial weights, and costs more than retraining.",
            REPEATED,
        ),
        run=_run,
    )
)
