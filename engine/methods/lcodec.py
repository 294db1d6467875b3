"""L-codec (Mehta et al. 2022, the paper's [49]): a Newton step on the weights that D_f hangs on.

For a batch of m deleted pairs the model runs many times under small perturbations, and the units on
which its loss depends are chosen one after the other by a coefficient of conditional dependence
(`engine.methods.dependence`), until the rest tells nothing more. The weights w of the chosen units
take one Newton step that removes the batch (Sekhari et al. 2021), and get Gaussian noise:

    w <- w + m / |D_r| * (H + lambda)^-1 grad L(batch; w) + N(0, sigma^2)

Mapping:
- A unit is one output of a linear layer: its row of weights and its bias, observed as its mean over
  pairs and tokens. Units compete when the gradient of the batch in them is large (`candidates`).
- Perturbed are the outputs of the candidates, not the inputs: tokens and frozen encodings have no
  neighbourhood, and so every modality is treated alike.
- H is the diagonal of the Fisher information on pairs of D_r: the gradients of the original's last
  training epochs, from which the source estimates the Hessian, are not stored with a checkpoint.
- sigma is a parameter: the source derives it from constants of a convex loss.

The cost is bounded: ``passes`` forward passes and one backward pass for each batch of D_f, and one
pass over ``fisher_pairs`` pairs. There is no training loop, and so no saved state: an interrupted
run starts again, and comes to the same weights.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from pydantic import Field
from torch import Tensor, nn
from torch_geometric.nn import Linear as GraphLinear

from engine.errors import NonFiniteLoss
from engine.families.base import PairModel
from engine.methods.ascent import require_contrast
from engine.methods.base import REPEATED, Method, MethodParams, applies_everywhere, methods
from engine.methods.dependence import select
from engine.methods.finite import require_answers
from engine.tasks.base import cut
from engine.training import FitReport, epoch_seed
from engine.unlearning import Unlearning, draw

FISHER_BATCH = 8
"""Pairs in one gradient of the Fisher information; a contrastive loss needs more than one."""

Unit = tuple[nn.Module, int]
"""A linear layer and the place of one of its outputs."""
ByWeight = dict[nn.Parameter, Tensor]
"""A tensor for each weight and bias of the linear layers, of the same shape."""


class LCodecParams(MethodParams):
    """What is perturbed, how much is selected, and the step and noise on it."""

    batch_size: int = Field(
        default=64, ge=2, le=4096, description="deleted pairs that are removed in one step"
    )
    passes: int = Field(
        default=64, ge=8, le=4096, description="perturbed passes that dependence is estimated from"
    )
    perturbation: float = Field(
        default=0.1, gt=0, le=10, description="of a unit, in deviations of its layer's outputs"
    )
    candidates: int = Field(
        default=64, ge=1, le=4096, description="units with the largest gradient that are tried"
    )
    selected: int = Field(default=16, ge=1, le=1024, description="most units that a step changes")
    damping: float = Field(
        default=0.01, gt=0, le=1000, description="lambda, added to the Fisher information"
    )
    fisher_pairs: int = Field(
        default=512, ge=2, le=1_000_000, description="pairs of D_r that it is estimated from"
    )
    noise: float = Field(
        default=0.001, ge=0, le=1, description="sigma, of the noise on the changed weights"
    )


def newton_step(gradient: Tensor, curvature: Tensor, damping: float, share: float) -> Tensor:
    """Return what is added to weights so that removed pairs no longer pull at them.

    Args:
        gradient: of the mean loss of the m removed pairs, any shape.
        curvature: diagonal of the Hessian of the mean loss of the n pairs that stay, same shape.
        damping: lambda.
        share: m / n.
    """
    return share * gradient / (curvature + damping)


class Scrubber:
    """One run of L-codec on a student.

    Attributes:
        units: every output of every linear layer that is trained.
        fisher: diagonal Fisher information of the weights.
        changed: the units that a step has changed.
    """

    def __init__(self, run: Unlearning, student: PairModel, params: LCodecParams) -> None:
        require_contrast(run)
        self.run, self.student, self.params = run, student, params
        layers = [module for module in student.modules() if _trained(module)]
        self.weights = [weight for layer in layers for weight in _weights(layer)]
        self.units = [(layer, at) for layer in layers for at in range(len(_weights(layer)[0]))]
        self.generator = torch.Generator().manual_seed(epoch_seed(run.seed, "lcodec", 0))
        self.fisher = self._fisher()
        self.changed: set[Unit] = set()

    def scrub(self) -> None:
        """Remove D_f, batch by batch."""
        order = torch.randperm(len(self.run.forget), generator=self.generator)
        batches = list(cut(self.run.forget[order], self.params.batch_size))
        for number, batch in enumerate(batches):
            value = self._remove(batch, epoch_seed(self.run.seed, "lcodec", number + 1))
            if self.run.monitor.due():
                self.run.monitor.report("unlearn", number + 1, len(batches), {"before_step": value})
        self.run.reports.append(
            FitReport(
                steps=len(batches),
                samples=len(order),
                epochs=1,
                best_epoch=-1,
                best_score=float("-inf"),
                trained_parameters=sum(
                    w[at].numel() for la, at in self.changed for w in _weights(la)
                ),
            )
        )

    def _remove(self, batch: Tensor, seed: int) -> float:
        value = self._loss(batch, seed)
        gradients = self._gradients(value)
        units = self._candidates(gradients)
        if units:
            losses, outputs = self._observe(batch, seed, units)
            spread = outputs.std(dim=0, correction=0).clamp(min=1e-12)
            columns = (outputs - outputs.mean(dim=0)) / spread
            telling = select(losses, columns, self.params.selected)
            self._step([units[place] for place in telling], gradients, len(batch))
        return float(value.detach())

    def _loss(self, rows: Tensor, seed: int) -> Tensor:
        """Return the task's loss on ``rows`` ``(B,)``; the same seed draws the same negatives."""
        self.run.monitor.check()
        torch.manual_seed(seed)
        terms = self.run.task.loss(self.student, self.run.inputs, rows)
        value = torch.stack([term.float() for term in terms.values()]).sum()
        if not torch.isfinite(value):
            raise NonFiniteLoss(
                f"the loss of a batch of {len(rows)} pairs is {value.item()}; raise the damping or "
                "lower the noise; nothing was saved"
            )
        return value

    def _gradients(self, value: Tensor) -> ByWeight:
        found = torch.autograd.grad(value, self.weights, allow_unused=True)
        pairs = zip(self.weights, found, strict=True)
        return {w: torch.zeros_like(w) if g is None else g for w, g in pairs}

    def _fisher(self) -> ByWeight:
        """Return the diagonal Fisher information F of each weight on pairs of D_r.

        At a minimum the mean gradient of B pairs has variance F / B.
        """
        count = min(self.params.fisher_pairs, len(self.run.retain))
        batches = list(cut(draw(self.run.retain, count, self.generator), FISHER_BATCH))
        total = {weight: torch.zeros_like(weight) for weight in self.weights}
        for number, batch in enumerate(batches):
            value = self._loss(batch, epoch_seed(self.run.seed, "fisher", number))
            for weight, gradient in self._gradients(value).items():
                total[weight] += len(batch) / len(batches) * gradient**2
        return total

    def _candidates(self, gradients: ByWeight) -> list[Unit]:
        """Return the units with the largest gradient in their weights, layer by layer."""
        layers = dict.fromkeys(layer for layer, _ in self.units)
        squares = [[_squares(gradients[w]) for w in _weights(layer)] for layer in layers]
        sizes = torch.cat([torch.stack(parts).sum(0) for parts in squares])
        best = sizes.topk(min(self.params.candidates, len(sizes))).indices
        return [self.units[at] for at in sorted(best.tolist()) if sizes[at] > 0]

    @torch.no_grad()
    def _observe(self, rows: Tensor, seed: int, units: list[Unit]) -> tuple[Tensor, Tensor]:
        """Return losses ``(n,)`` and outputs of units ``(n, c)`` of n perturbed passes."""
        losses, outputs = [], []
        for _ in range(self.params.passes):
            shifts = self.params.perturbation * torch.randn(len(units), generator=self.generator)
            with shaken(units, shifts) as seen:
                losses.append(self._loss(rows, seed))
            outputs.append(torch.stack([torch.stack(seen[unit]).mean() for unit in units]))
        return torch.stack(losses).double().cpu(), torch.stack(outputs).double().cpu()

    @torch.no_grad()
    def _step(self, units: list[Unit], gradients: ByWeight, removed: int) -> None:
        share = removed / len(self.run.retain)
        for layer, at in units:
            for weight in _weights(layer):
                step = newton_step(
                    gradients[weight][at], self.fisher[weight][at], self.params.damping, share
                )
                noise = torch.randn(step.shape, generator=self.generator) * self.params.noise
                weight[at] += step + noise.to(step)
        self.changed.update(units)


@contextmanager
def shaken(units: Sequence[Unit], shifts: Tensor) -> Iterator[dict[Unit, list[Tensor]]]:
    """Within the context, shift outputs of linear layers and remember what they then are.

    Args:
        units: outputs of layers.
        shifts: ``(c,)`` one for each unit, in standard deviations of its layer's outputs; every
            pair and token gets the same.

    Yields:
        The mean output of each unit over pairs and tokens, one for each call of its layer.
    """
    seen: dict[Unit, list[Tensor]] = {unit: [] for unit in units}
    places: dict[nn.Module, list[int]] = {}
    for place, (layer, _) in enumerate(units):
        places.setdefault(layer, []).append(place)

    def shake(layer: nn.Module, _: object, output: Tensor) -> Tensor:
        ats = [units[place][1] for place in places[layer]]
        output = output.clone()
        output[..., ats] += output.std(correction=0) * shifts[places[layer]].to(output)
        means = output[..., ats].flatten(0, -2).mean(0)
        for at, mean in zip(ats, means, strict=True):
            seen[layer, at].append(mean)
        return output

    with ExitStack() as stack:
        for layer in places:
            stack.callback(layer.register_forward_hook(shake).remove)
        yield seen


def _trained(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | GraphLinear) and module.weight.requires_grad


def _weights(layer: nn.Module) -> list[nn.Parameter]:
    """Return the weight ``(outputs, inputs)`` and, where there is one, the bias ``(outputs,)``."""
    return list(layer.parameters(recurse=False))


def _squares(gradient: Tensor) -> Tensor:
    """Return the sum of squares of each output's part of a gradient ``(outputs,)``."""
    return gradient.reshape(len(gradient), -1).pow(2).sum(1)


def _run(run: Unlearning) -> PairModel:
    params = run.parameters_as(LCodecParams)
    student = run.student()
    with ExitStack() as stack:
        if run.update == "fusion":
            stack.enter_context(run.inputs.freeze(student))
        scrubber = Scrubber(run, student, params)
        scrubber.scrub()
        require_answers(run, student, "a Newton step", "raise the damping or lower the noise")
    return student


methods.register("lcodec")(
    Method(
        name="lcodec",
        summary="Takes a Newton step, with noise, on the weights that the deleted pairs depend on.",
        guarantee="approximate",
        scopes=frozenset({"association"}),
        params=LCodecParams,
        refusal=applies_everywhere,
        limitations=(
            (
                "The Newton step assumes a convex loss at its minimum, and takes the diagonal of "
                "the Fisher information for its Hessian; neither is exact here, so that nothing is "
                "proved."
            ),
            "What the deleted pairs left in weights that were not selected stays.",
            "The noise is not aimed at the deleted pairs, and may blur retained ones as well.",
            REPEATED,
        ),
        run=_run,
    )
)
