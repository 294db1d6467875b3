import errno
import json
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from engine import training_state
from engine.errors import Cancelled, NonFiniteLoss, StorageFull
from engine.monitor import Monitor
from engine.spec import Precision, Progress
from engine.training import FitReport, Schedule, deterministic, epoch_seed, fit


class Regression:
    """Fit y = Wx by least squares, with dropout so that random state matters."""

    def __init__(self, model: nn.Module, scores: Sequence[float | None] | None = None) -> None:
        self.model = model
        self.scores = scores
        self.validations = 0
        generator = torch.Generator().manual_seed(7)
        self.x = torch.randn(24, 4, generator=generator)
        self.y = self.x @ torch.randn(4, 3, generator=generator)

    def batches(self, epoch: int, generator: torch.Generator) -> Sequence[Tensor]:
        del epoch
        return list(torch.split(torch.randperm(24, generator=generator), 8))

    def loss(self, batch: Tensor) -> dict[str, Tensor]:
        return {"fit": nn.functional.mse_loss(self.model(self.x[batch]), self.y[batch])}

    def validate(self) -> float | None:
        self.validations += 1
        if self.scores is not None:
            return self.scores[self.validations - 1]
        return -float(self.loss(torch.arange(24))["fit"].detach())


class Stop:
    """Cancels after so many steps."""

    def __init__(self, after: int) -> None:
        self.left = after

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Cancelled("stopped by the test")


SCHEDULE = Schedule(epochs=6, learning_rate=0.05, warmup=0.2, decay=True, dropout=True)


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.2), nn.GELU(), nn.Linear(16, 3))


def train(model: nn.Module, monitor: Monitor, schedule: Schedule = SCHEDULE) -> FitReport:
    return fit(model, Regression(model), schedule, phase="train", seed=5, monitor=monitor)


def bits(model: nn.Module) -> list[bytes]:
    return [tensor.numpy().tobytes() for tensor in model.state_dict().values()]


def test_the_learning_rate_rises_and_falls_as_stated() -> None:
    schedule = Schedule(epochs=1, learning_rate=1.0, warmup=0.2, decay=True)
    assert schedule.rate(0.1) == pytest.approx(0.5)
    assert schedule.rate(0.2) == pytest.approx(1.0)
    # Half of the way down the cosine: 0.1 + 0.9 / 2.
    assert schedule.rate(0.6) == pytest.approx(0.55)
    assert schedule.rate(1.0) == pytest.approx(0.1)
    assert replace(schedule, decay=False).rate(0.9) == 1.0


def test_training_lowers_the_loss_and_counts_what_it_did() -> None:
    model = network()
    before = -Regression(model).validate()
    report = train(model, Monitor())
    assert -Regression(model.eval()).validate() < before / 2
    assert (report.epochs, report.steps, report.samples) == (6, 18, 144)
    assert report.trained_parameters == 4 * 16 + 16 + 16 * 3 + 3


def test_parameters_without_gradient_stay_as_they_are() -> None:
    model = network()
    frozen = next(model.parameters())
    frozen.requires_grad = False
    before = frozen.clone()
    train(model, Monitor())
    assert torch.equal(frozen, before)


def test_the_same_seed_gives_the_same_bits_and_another_seed_others() -> None:
    first, second, third = network(), network(), network()
    train(first, Monitor())
    train(second, Monitor())
    fit(third, Regression(third), SCHEDULE, phase="train", seed=6, monitor=Monitor())
    assert bits(first) == bits(second)
    assert bits(first) != bits(third)


def test_the_seed_of_an_epoch_depends_on_seed_phase_and_epoch_alone() -> None:
    seeds = {epoch_seed(s, p, e) for s in (0, 1) for p in ("train", "unlearn") for e in (0, 1)}
    assert len(seeds) == 8
    assert epoch_seed(0, "train", 1) == epoch_seed(0, "train", 1)


@pytest.mark.parametrize("steps", [0, 1, 4, 7, 12, 17])
def test_an_interrupted_training_goes_on_to_the_same_bits(tmp_path: Path, steps: int) -> None:
    whole = network()
    report = train(whole, Monitor())
    interrupted = network()
    monitor = Monitor(state=tmp_path, save_every=0, fingerprint="a", control=Stop(steps))
    with pytest.raises(Cancelled):
        train(interrupted, monitor)
    resumed = network()
    assert train(resumed, Monitor(state=tmp_path, fingerprint="a", save_every=0)) == report
    assert bits(resumed) == bits(whole)


def test_a_training_that_goes_on_says_what_the_saved_part_of_it_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count(step=10)  # each look at the clock is 10 seconds later
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))

    def saved() -> float:
        with safe_open(tmp_path / "train.safetensors", framework="pt") as file:
            return float(json.loads(file.metadata()["state"])["seconds"])

    with pytest.raises(Cancelled):
        train(network(), Monitor(state=tmp_path, save_every=0, control=Stop(7)))
    first = saved()
    assert first >= 10
    report = train(network(), Monitor(state=tmp_path, save_every=0))
    assert report.earlier_seconds == first
    assert saved() >= first + 10  # a third attempt would know both
    assert train(network(), Monitor(state=tmp_path)).earlier_seconds == saved()


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    train(network(), Monitor(state=tmp_path, fingerprint="a"))
    again = network()
    objective = Regression(again)
    monitor = Monitor(state=tmp_path, fingerprint="a", control=Stop(0))
    report = fit(again, objective, SCHEDULE, phase="train", seed=5, monitor=monitor)
    assert report.steps == 18
    assert objective.validations == 0


@pytest.mark.parametrize("fingerprint", ["b", ""])
def test_the_state_of_another_run_is_not_used(tmp_path: Path, fingerprint: str) -> None:
    train(network(), Monitor(state=tmp_path, fingerprint="a"))
    model = network()
    control = Stop(1)
    with pytest.raises(Cancelled):
        train(model, Monitor(state=tmp_path, fingerprint=fingerprint, control=control))


def test_a_damaged_state_starts_the_training_again(tmp_path: Path) -> None:
    whole = network()
    train(whole, Monitor(state=tmp_path, fingerprint="a"))
    path = tmp_path / "train.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    again = network()
    assert train(again, Monitor(state=tmp_path, fingerprint="a")).steps == 18
    assert bits(again) == bits(whole)


def test_the_best_validation_decides_which_weights_stay(tmp_path: Path) -> None:
    model, early = network(), network()
    # A constant rate, so that one epoch alone is the first of six.
    schedule = Schedule(epochs=6, learning_rate=0.05)
    objective = Regression(model, scores=[1.0, 9.0, 3.0, 2.0, 2.0, 2.0])
    report = fit(model, objective, schedule, phase="train", seed=5, monitor=Monitor())
    assert (report.best_epoch, report.best_score) == (1, 9.0)
    two = replace(schedule, epochs=2)
    fit(early, Regression(early, [1.0, 2.0]), two, phase="train", seed=5, monitor=Monitor())
    assert bits(model) == bits(early)


def test_without_a_validation_the_last_weights_stay() -> None:
    model, compared = network(), network()
    blind = Regression(model, scores=[None] * 4)
    report = fit(
        model, blind, replace(SCHEDULE, epochs=4), phase="train", seed=5, monitor=Monitor()
    )
    rising = Regression(compared, scores=[1.0, 2.0, 3.0, 4.0])
    fit(compared, rising, replace(SCHEDULE, epochs=4), phase="train", seed=5, monitor=Monitor())
    assert report.best_epoch == 3
    assert bits(model) == bits(compared)


def test_training_stops_when_patience_is_over() -> None:
    model = network()
    objective = Regression(model, scores=[1.0, 5.0, 4.0, 3.0, 9.0, 9.0])
    schedule = replace(SCHEDULE, patience=2)
    report = fit(model, objective, schedule, phase="train", seed=5, monitor=Monitor())
    assert (report.epochs, report.best_epoch) == (4, 1)


def test_the_last_epoch_is_validated_even_between_two_validations() -> None:
    model = network()
    objective = Regression(model, scores=[1.0, 2.0])
    schedule = replace(SCHEDULE, validate_every=4)
    report = fit(model, objective, schedule, phase="train", seed=5, monitor=Monitor())
    assert (objective.validations, report.best_epoch) == (2, 5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_phase_step_and_term(value: float) -> None:
    model = network()
    objective = Regression(model)
    objective.y[5] = value
    with pytest.raises(NonFiniteLoss, match=r"train, step \d: .* fit = (nan|inf)"):
        fit(model, objective, SCHEDULE, phase="train", seed=5, monitor=Monitor())


def test_a_gradient_that_is_not_finite_stops_the_run() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)

    class Root(Regression):
        def loss(self, batch: Tensor) -> dict[str, Tensor]:
            # sqrt has an infinite slope at 0.
            return {"root": self.model(torch.ones(1, 1)).sqrt().sum()}

    with pytest.raises(NonFiniteLoss, match="gradient is not finite"):
        fit(model, Root(model), SCHEDULE, phase="train", seed=0, monitor=Monitor())


class OneStep(Regression):
    """One batch an epoch: what the last step did meets no further loss."""

    def batches(self, epoch: int, generator: torch.Generator) -> Sequence[Tensor]:
        del epoch, generator
        return [torch.arange(24)]


def test_weights_that_the_last_step_made_infinite_are_not_a_result(tmp_path: Path) -> None:
    model = network()
    schedule = Schedule(epochs=1, learning_rate=1e308)
    monitor = Monitor(state=tmp_path, fingerprint="a")
    objective = OneStep(model, scores=[1.0])
    with pytest.raises(NonFiniteLoss, match=r"after epoch 1: the weight 0\.weight is not finite"):
        fit(model, objective, schedule, phase="train", seed=5, monitor=monitor)
    assert list(tmp_path.iterdir()) == []


class BreaksInItsSecondEpoch(OneStep):
    """The loss is finite, and the weights are not once its gradient was taken."""

    def loss(self, batch: Tensor) -> dict[str, Tensor]:
        terms = super().loss(batch)
        if self.validations == 1:
            next(self.model.parameters()).data.fill_(math.nan)
        return terms


def test_an_earlier_epoch_with_a_better_score_outlives_weights_that_broke() -> None:
    model = nn.Linear(4, 3)
    objective = BreaksInItsSecondEpoch(model, scores=[1.0, 0.5])
    schedule = Schedule(epochs=2, learning_rate=0.01)
    report = fit(model, objective, schedule, phase="train", seed=5, monitor=Monitor())
    assert report.best_epoch == 0
    assert torch.isfinite(model.weight).all()


def test_weights_that_broke_are_not_kept_whatever_their_score_says() -> None:
    model = nn.Linear(4, 3)
    objective = BreaksInItsSecondEpoch(model, scores=[1.0, 2.0])
    schedule = Schedule(epochs=2, learning_rate=0.01)
    with pytest.raises(NonFiniteLoss, match="after epoch 2: the weight weight is not finite"):
        fit(model, objective, schedule, phase="train", seed=5, monitor=Monitor())


def test_progress_tells_the_losses() -> None:
    events: list[Progress] = []
    train(network(), Monitor(on_progress=events.append))
    assert events[0].phase == "train"
    assert events[0].total == 18
    assert events[0].losses["fit"] > 0


def test_a_full_disk_is_named_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(training_state, "_flush", full)
    with pytest.raises(StorageFull, match="disk is full"):
        train(network(), Monitor(state=tmp_path, fingerprint="a"))
    assert list(tmp_path.iterdir()) == []


def test_threads_and_determinism_are_set_back_afterwards() -> None:
    threads = torch.get_num_threads()
    with deterministic(threads + 1):
        assert torch.get_num_threads() == threads + 1
        assert torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


class Watched(Regression):
    """Notes in what precision the model answers in steps and in validations."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.steps: set[torch.dtype] = set()
        self.validated: set[torch.dtype] = set()

    def loss(self, batch: Tensor) -> dict[str, Tensor]:
        found = self.model(self.x[batch])
        (self.steps if torch.is_grad_enabled() else self.validated).add(found.dtype)
        return {"fit": nn.functional.mse_loss(found.float(), self.y[batch])}


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("auto", torch.float32), ("fp32", torch.float32), ("bf16", torch.bfloat16)],
)
def test_steps_are_in_the_precision_that_is_asked_for_and_validations_in_fp32(
    monkeypatch: pytest.MonkeyPatch, precision: Precision, dtype: torch.dtype
) -> None:
    monkeypatch.setattr("engine.environment.has_bf16", lambda _: True)
    model = network()
    watched = Watched(model)
    with deterministic(1, precision):
        fit(model, watched, SCHEDULE, phase="train", seed=0, monitor=Monitor())
    assert watched.steps == {dtype}
    assert watched.validated == {torch.float32}
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
