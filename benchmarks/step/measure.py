"""Time both loops side by side: on each batch first the plain step, then the engine's."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.step.plain import PlainLoop, plain_batches
from benchmarks.step.world import World
from engine.families.base import PairModel
from engine.methods.multidelete import Batch, MultiDelete
from engine.methods.multidelete_params import MultiDeleteParams
from engine.spec import Precision
from engine.training import Schedule, deterministic, fit

Loop = Literal["plain", "engine"]
Kind = Literal["wall", "cpu"]
NUDGE = 0.02
"""Deviation of what is added to a student before losses are compared: where it still equals its
teacher, every retention term is 0 in any loop."""


class Seconds(NamedTuple):
    """What a step took: on the clock, and of processors, which other work changes less."""

    wall: float
    cpu: float


@dataclass
class Timings:
    """What each step took, by epoch; the first epoch also fills the engine's caches.

    Attributes:
        plain, engine: of each step.
        cuts: what the engine took to cut each epoch into batches, and to see how far to push.
        pairs: deleted and retained pairs in a step.
        before: what each loop took before its first epoch: choosing what deleted pairs end at, and of
            the engine the teacher's outputs that it keeps, and what its selection compares with.
    """

    plain: list[list[Seconds]] = field(default_factory=list)
    engine: list[list[Seconds]] = field(default_factory=list)
    cuts: list[Seconds] = field(default_factory=list)
    pairs: int = 0
    before: dict[Loop, Seconds] = field(default_factory=dict)

    def steps(self, loop: Loop, kind: Kind = "wall") -> list[float]:
        """Return the seconds of every step after the first epoch."""
        return [getattr(step, kind) for epoch in getattr(self, loop)[1:] for step in epoch]

    def epochs(self, loop: Loop, kind: Kind = "wall", start: int = 1) -> list[float]:
        """Return the seconds of every epoch after the first, or from ``start`` on."""
        epochs = [sum(getattr(step, kind) for step in epoch) for epoch in getattr(self, loop)]
        if loop == "engine":
            epochs = [own + getattr(cut, kind) for own, cut in zip(epochs, self.cuts, strict=True)]
        return epochs[start:]

    def job(self, loop: Loop, epochs: int) -> float:
        """Return the seconds of so many epochs: the first one, and the others as the later ones' median."""
        first, *later = self.epochs(loop, start=0)
        return first + (epochs - 1) * statistics.median(later)


class Clocked:
    """The engine's objective with a clock, and with the plain loop run before each of its steps.

    It is handed to the engine's own loop, whose step lies between two calls of `loss`.

    Args:
        objective: of the engine.
        plain: the plain loop, or None to run the engine alone.
        single: context in which the plain loop runs, in single precision whatever the engine's is.
        sync: waits until the device has done all its work.
    """

    def __init__(
        self,
        objective: MultiDelete,
        plain: PlainLoop | None,
        single: AbstractContextManager[object],
        sync: Callable[[], None],
    ) -> None:
        self.objective, self.plain, self.single, self.sync = objective, plain, single, sync
        self.timings = Timings()
        self._since: Seconds | None = None

    def batches(self, epoch: int, generator: torch.Generator) -> Sequence[Batch]:
        """Cut an epoch as the engine does."""
        began = _now()
        made = self.objective.batches(epoch, generator)
        self.sync()
        self.timings.cuts.append(_since(began))
        if self.plain is not None:
            self.plain.push = self.objective.push
        self.timings.plain.append([])
        self.timings.engine.append([])
        self.timings.pairs = len(made[0])
        return made

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """End the engine's last step, take a plain one, and begin the engine's next."""
        self._end()
        plain = self.plain
        if plain is not None:
            with self.single:
                self.timings.plain[-1].append(timed(lambda: plain.step(batch), self.sync))
        self._since = _now()
        return self.objective.loss(batch)

    def validate(self) -> float:
        """End the epoch; what a validation costs is no part of a step."""
        self._end()
        return 0.0

    def _end(self) -> None:
        if self._since is not None:
            self.sync()
            self.timings.engine[-1].append(_since(self._since))
        self._since = None


def timed(what: Callable[[], None], sync: Callable[[], None]) -> Seconds:
    """Return what a call took."""
    sync()
    began = _now()
    what()
    sync()
    return _since(began)


def _now() -> Seconds:
    return Seconds(time.perf_counter(), time.process_time())


def _since(began: Seconds) -> Seconds:
    now = _now()
    return Seconds(now.wall - began.wall, now.cpu - began.cpu)


@contextmanager
def engine_objective(world: World) -> Iterator[tuple[PairModel, MultiDelete]]:
    """Give a student and the engine's objective as `multidelete` sets them up."""
    run = world.run
    student = run.student()
    with ExitStack() as stack:
        stack.enter_context(run.inputs.freeze(run.teacher))
        if run.update == "fusion":
            stack.enter_context(run.inputs.freeze(student))
        yield student, MultiDelete(run, student, run.parameters_as(MultiDeleteParams))


def race(
    world: World,
    *,
    epochs: int,
    precision: Precision = "fp32",
    threads: int = 1,
    plain: bool = True,
) -> Timings:
    """Run ``1 + epochs`` epochs of both loops, or of the engine alone, and return their times.

    Each loop changes a student of its own. The engine's steps are those of its own training loop.
    """
    device = world.run.teacher.device
    sync = _synchroniser(device)
    with deterministic(threads, precision), ExitStack() as stack:
        began = _now()
        student, objective = stack.enter_context(engine_objective(world))
        sync()
        before: dict[Loop, Seconds] = {"engine": _since(began)}
        began = _now()
        loop = PlainLoop(world, world.run.student()) if plain else None
        sync()
        before["plain"] = _since(began)
        clocked = Clocked(objective, loop, autocast(device, "fp32"), sync)
        clocked.timings.before = before
        schedule = Schedule(
            epochs=1 + epochs,
            learning_rate=objective.weights.learning_rate,
            weight_decay=0.0,
        )
        fit(
            student,
            clocked,
            schedule,
            phase="unlearn",
            seed=world.run.seed,
            monitor=world.run.monitor,
        )
        return clocked.timings


def plain_alone(world: World, *, epochs: int, threads: int = 1) -> dict[str, Tensor]:
    """Run ``1 + epochs`` epochs of the plain loop where nothing of the engine's is in memory.

    Returns:
        What was trained after the last epoch: the best checkpoint, of which the paper keeps one.
    """
    best: dict[str, Tensor] = {}
    with deterministic(threads):
        loop = PlainLoop(world, world.run.student())
        for _ in range(1 + epochs):
            for batch in plain_batches(world.run):
                loop.step(batch)
            best = loop.checkpoint()
    return best


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Return the context in which a loss is computed, whatever was chosen around it."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def _synchroniser(device: torch.device) -> Callable[[], None]:
    return torch.cuda.synchronize if device.type == "cuda" else lambda: None


@dataclass(frozen=True)
class Terms:
    """The terms of one loss on one batch, by name."""

    plain: dict[str, float]
    engine: dict[str, float]

    @property
    def difference(self) -> float:
        """The largest difference of a term, in units of the term or of 1, if that is larger."""
        return max(
            abs(self.plain[name] - self.engine[name]) / max(1.0, abs(self.plain[name]))
            for name in self.plain.keys() | self.engine.keys()
        )


def compare(world: World, *, precision: Precision = "fp32", threads: int = 1) -> Terms:
    """Compute both losses of one student on the same batch; the plain one in single precision."""
    device = world.run.teacher.device
    with deterministic(threads), engine_objective(world) as (student, objective):
        nudge(student)
        batch = objective.batches(0, torch.Generator().manual_seed(1))[0]
        loop = PlainLoop(world, student)
        # Any push is the same to both; one that is 0 would compare nothing.
        generator = torch.Generator().manual_seed(2)
        push = torch.rand(len(objective.push), generator=generator).to(device)
        loop.push = objective.push = push
        with torch.no_grad():
            plain = loop.loss(batch)
            with autocast(device, precision):
                engine = objective.loss(batch)
    return Terms(_numbers(plain), _numbers(engine))


def nudge(student: PairModel) -> None:
    """Move every weight that is trained a little, the same way each time."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in student.parameters():
            if weight.requires_grad:
                noise = torch.randn(weight.shape, generator=generator)
                weight.add_(NUDGE * noise.to(weight.device))


def _numbers(terms: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(term) for name, term in terms.items()}


def operations(world: World, *, threads: int = 1) -> float:
    """Return the floating-point operations of one step of the engine, as PyTorch counts them."""
    with deterministic(threads), engine_objective(world) as (_, objective):
        batch = objective.batches(0, torch.Generator().manual_seed(1))[0]
        objective.loss(batch)  # fills the caches
        with FlopCounterMode(display=False) as counter:
            torch.stack(list(objective.loss(batch).values())).sum().backward()
    return float(counter.get_total_flops())


def ratios(timings: Timings, *, epochs: bool, kind: Kind = "wall") -> list[float]:
    """Return how many times longer the plain loop took, for each step or each epoch."""
    read = timings.epochs if epochs else timings.steps
    pairs = zip(read("plain", kind), read("engine", kind), strict=True)
    return [slow / fast for slow, fast in pairs]


def rate(timings: Timings) -> float:
    """Return the pairs a second of the engine's steps."""
    return timings.pairs / statistics.median(timings.steps("engine"))
