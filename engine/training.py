"""The one optimisation loop: every training and every unlearning method runs through `fit`."""

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from engine.environment import precision_on
from engine.errors import NonFiniteLoss
from engine.monitor import Monitor
from engine.processes import agree, average_gradients, from_main, is_main
from engine.shares import dividing
from engine.spec import Keep, Precision
from engine.training_state import BestWeights, StateFile, TrainingState

if TYPE_CHECKING:
    from engine.families.base import PairModel
    from engine.inputs import Inputs
    from engine.tasks.base import Task, TrainingRecipe


_PRECISION: ContextVar[Precision] = ContextVar("precision", default="auto")
"""Of the steps of `fit`, see `deterministic`."""


class Sized(Protocol):
    """A batch: the loop only needs the number of pairs in it."""

    def __len__(self) -> int: ...


BatchT = TypeVar("BatchT", bound=Sized)


class Objective(Protocol, Generic[BatchT]):
    """What is minimised: how an epoch is cut, the loss of a batch, the validation score."""

    def batches(self, epoch: int, generator: torch.Generator) -> Sequence[BatchT]:
        """Return the batches of an epoch, drawn with ``generator`` only."""

    def loss(self, batch: BatchT) -> dict[str, Tensor]:
        """Return the weighted terms of the loss, scalars; their sum is minimised."""

    def validate(self) -> float | None:
        """Return the score by which epochs are compared, higher is better; None keeps the last."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Attributes:
        epochs: passes over what the objective cuts.
        learning_rate: highest learning rate of AdamW.
        weight_decay: of matrices; vectors (biases, normalisation) are not decayed.
        warmup: share of all steps in which the rate rises from 0.
        decay: whether the rate then falls along a cosine to a tenth.
        clip: largest norm of the gradient.
        validate_every: epochs between two validations; the last epoch is always validated.
        patience: epochs without a better validation after which to stop, or None.
        dropout: whether the model is in training mode.
        keep: the weights of the best validation, or those after the last epoch.
    """

    epochs: int
    learning_rate: float
    weight_decay: float = 0.01
    warmup: float = 0.0
    decay: bool = False
    clip: float = 1.0
    validate_every: int = 1
    patience: int | None = None
    dropout: bool = False
    keep: Keep = "best"

    def rate(self, done: float) -> float:
        """Return the learning rate when the share ``done`` in (0, 1] of all steps was taken."""
        if done < self.warmup:
            return self.learning_rate * done / self.warmup
        if not self.decay or self.warmup >= 1:
            return self.learning_rate
        turn = (done - self.warmup) / (1 - self.warmup)
        return self.learning_rate * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * turn)))


@dataclass(frozen=True)
class FitReport:
    """What a training took and where its best epoch was; ``earlier_seconds``: of earlier attempts."""

    steps: int
    samples: int
    epochs: int
    best_epoch: int
    best_score: float
    trained_parameters: int
    earlier_seconds: float = field(default=0.0, compare=False)


def epoch_seed(seed: int, phase: str, epoch: int) -> int:
    """Return the seed of one epoch: it depends on nothing that happened before in the process.

    A run that was interrupted between two epochs therefore draws what it would have drawn.
    """
    digest = hashlib.sha256(f"{seed}:{phase}:{epoch}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


@contextmanager
def deterministic(threads: int, precision: Precision = "auto") -> Iterator[None]:
    """Run the body with ``threads`` threads and deterministic kernels, and undo both after it.

    On a GPU some graph kernels have no deterministic form: those warn instead of failing.

    Args:
        threads: of one operation.
        precision: of the steps of `fit`; what is measured is in single precision.
    """
    token = _PRECISION.set(precision)
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())  # noqa: FBT003
    try:
        yield
    finally:
        _PRECISION.reset(token)
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1], warn_only=warn_only)


def fit(
    model: nn.Module,
    objective: Objective[BatchT],
    schedule: Schedule,
    *,
    phase: str,
    seed: int,
    monitor: Monitor,
) -> FitReport:
    """Minimise ``objective`` over the parameters of ``model`` that require gradients.

    The weights of the best validation are in the model afterwards, or the last ones where the
    schedule keeps those. With a state folder the loop
    goes on after the last saved epoch of the same phase, with the same bits as if it had never
    been interrupted.

    Args:
        model: the model to train, in place; its parameters hold no gradients, since a step clears them
            only after itself.
        objective: batches, loss and validation score.
        schedule: length and learning rate.
        phase: name in progress events and of the state file.
        seed: of every random choice.
        monitor: progress, cancellation, state.

    Raises:
        NonFiniteLoss: a term of the loss, a gradient or a weight is NaN or infinite.
        Cancelled: the caller wants the run to stop.
        StorageFull: the state folder has no room.
    """
    return _Loop(model, objective, schedule, phase, seed, monitor).run()


class _Loop(Generic[BatchT]):
    """One call of `fit`."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective[BatchT],
        schedule: Schedule,
        phase: str,
        seed: int,
        monitor: Monitor,
    ) -> None:
        self.model = model
        self.objective = objective
        self.schedule = schedule
        self.phase = phase
        self.seed = seed
        self.monitor = monitor
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.device = next((p.device for p in self.parameters), torch.device("cpu"))
        self.optimizer = _optimizer(self.parameters, schedule)
        self.state = TrainingState()
        self.best = BestWeights()
        self.file = StateFile.of(monitor, phase, seed)
        self.began = self.saved_at = time.monotonic()

    def run(self) -> FitReport:
        if self.file is not None:
            self.file.restore(self.model, self.optimizer, self.best, self.state)
            agree(self.state.epoch, "saved epochs", self.file.path)
        with dividing(self.model):
            while not self._finished():
                self._epoch(self.state.epoch)
                self._validate_when_due()
                self._save_when_due()
        self.best.restore(self.model)
        self.model.eval()
        return self._report()

    def _finished(self) -> bool:
        patience = self.schedule.patience
        waited = self.state.epoch - 1 - self.state.best_epoch
        impatient = patience is not None and self.state.epoch > 0 and waited >= patience
        return impatient or self.state.epoch >= self.schedule.epochs

    def _epoch(self, epoch: int) -> None:
        seed = epoch_seed(self.seed, self.phase, epoch)
        torch.manual_seed(seed)  # dropout draws from the global generator
        generator = torch.Generator().manual_seed(seed)
        batches = self.objective.batches(epoch, generator)
        self.model.train(self.schedule.dropout)
        for index, batch in enumerate(batches):
            self.monitor.check()
            done = (epoch + (index + 1) / len(batches)) / self.schedule.epochs
            terms = self._step(batch, self.schedule.rate(done))
            self.state.steps += 1
            self.state.samples += len(batch)
            if self.monitor.due():
                self._progress(epoch * len(batches) + index + 1, len(batches), terms)
        self.state.epoch = epoch + 1

    def _step(self, batch: BatchT, rate: float) -> dict[str, Tensor]:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with _autocast(self.device):
            terms = self.objective.loss(batch)
            total = torch.stack([term.float() for term in terms.values()]).sum()
        if not torch.isfinite(total):
            raise NonFiniteLoss(self._explain(terms))
        total.backward()
        average_gradients(self.parameters)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.schedule.clip)
        if not torch.isfinite(norm):
            raise NonFiniteLoss(f"{self._where()}: the gradient is not finite; {_ADVICE}")
        self.optimizer.step()
        # At once: the next forward pass, and a validation, need the room.
        self.optimizer.zero_grad(set_to_none=True)
        return terms

    def _where(self) -> str:
        return f"{self.phase}, step {self.state.steps + 1}"

    def _explain(self, terms: dict[str, Tensor]) -> str:
        shown = ", ".join(f"{name} = {term.item():g}" for name, term in terms.items())
        return f"{self._where()}: the loss must be finite, it is {shown}; {_ADVICE}"

    def _progress(self, step: int, per_epoch: int, terms: dict[str, Tensor]) -> None:
        losses = {name: float(term.detach()) for name, term in terms.items()}
        self.monitor.report(self.phase, step, per_epoch * self.schedule.epochs, losses)

    def _validate_when_due(self) -> None:
        last = self.state.epoch >= self.schedule.epochs
        if not last and self.state.epoch % self.schedule.validate_every:
            return
        self.model.eval()
        broken = self._broken()
        if broken is not None and self.state.best_epoch < 0:
            raise NonFiniteLoss(broken)
        score = self._score()
        if score is None or score > self.state.best_score or self.state.best_epoch < 0:
            if broken is not None:
                raise NonFiniteLoss(broken)
            self.state.best_score = 0.0 if score is None else score
            self.state.best_epoch = self.state.epoch - 1
            self.best.keep(self.model)

    def _score(self) -> float | None:
        """Return the validation score; None where the last epoch is kept, whatever its score."""
        if self.schedule.keep == "last":
            return None
        with torch.no_grad():
            score = self.objective.validate()
        return None if score is None else from_main(score)

    def _broken(self) -> str | None:
        """Return what to say of a trained weight that is not finite: the last step leaves no loss.

        An objective may score such an epoch below an earlier one, which then is the result.
        """
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad and not torch.isfinite(parameter).all():
                return (
                    f"{self.phase}, after epoch {self.state.epoch}: the weight {name} is not "
                    f"finite; {_ADVICE}"
                )
        return None

    def _save_when_due(self) -> None:
        if self.file is None or not is_main():
            return
        # What comes after the loop (the audit) may be interrupted too, so its end is always saved.
        if self._finished() or time.monotonic() - self.saved_at >= self.monitor.save_every:
            seconds = self.state.seconds + time.monotonic() - self.began
            state = replace(self.state, seconds=seconds)
            self.file.save(self.model, self.optimizer, self.best, state)
            self.saved_at = time.monotonic()

    def _report(self) -> FitReport:
        return FitReport(
            steps=self.state.steps,
            samples=self.state.samples,
            epochs=self.state.epoch,
            best_epoch=self.state.best_epoch,
            best_score=self.state.best_score,
            trained_parameters=sum(p.numel() for p in self.parameters),
            earlier_seconds=self.state.seconds,
        )


_ADVICE = "lower the learning rate or the weights of the loss; nothing was saved"


def _optimizer(parameters: list[nn.Parameter], schedule: Schedule) -> torch.optim.AdamW:
    matrices = [p for p in parameters if p.ndim > 1]
    vectors = [p for p in parameters if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": schedule.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=schedule.learning_rate, fused=True)


def _autocast(device: torch.device) -> AbstractContextManager[object]:
    """Return the context of a step; without bf16 a CPU run is exact."""
    if precision_on(device, _PRECISION.get()) == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


@dataclass(frozen=True)
class TaskObjective:
    """The loss of a task on chosen training pairs: how originals are trained and retrained.

    Attributes:
        task, model, inputs: what is trained on what.
        rows: training pairs ``(N,)``.
        validation: validation pairs ``(M,)``.
        batch_size: pairs in a batch.
    """

    task: "Task"
    model: "PairModel"
    inputs: "Inputs"
    rows: Tensor
    validation: Tensor
    batch_size: int

    def batches(self, epoch: int, generator: torch.Generator) -> Sequence[Tensor]:
        """Cut one epoch as the task wants it."""
        del epoch
        return list(self.task.batches(self.inputs, self.rows, self.batch_size, generator))

    def loss(self, batch: Tensor) -> dict[str, Tensor]:
        """Return the task's terms on the pairs of a batch ``(B,)``."""
        return self.task.loss(self.model, self.inputs, batch)

    def validate(self) -> float | None:
        """Return the task's validation score, or None when there is no validation pair."""
        if not len(self.validation):
            return None
        return self.task.validate(self.model, self.inputs, self.validation)


def recipe_schedule(recipe: "TrainingRecipe") -> Schedule:
    """Return the schedule that a training recipe describes."""
    return Schedule(
        epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        warmup=recipe.warmup,
        decay=True,
        patience=recipe.patience,
        dropout=True,
        keep=recipe.keep,
    )
