from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.errors import Cancelled, InvalidSpec, NotApplicable
from engine.families import PairModel
from engine.methods import methods
from engine.methods.ul import REACHED, KnowledgeUnlearning, ULParams
from engine.monitor import Monitor
from engine.unlearning import Unlearning

Unlearn = Callable[..., Unlearning]
Scores = Callable[[Unlearning, PairModel, Tensor], Tensor]


def objective(run: Unlearning) -> KnowledgeUnlearning:
    return KnowledgeUnlearning(run, run.student(), run.parameters_as(ULParams))


def test_only_the_text_side_changes(unlearn: Unlearn) -> None:
    run = unlearn("albef", "ul", trained=False, epochs=2, least_steps=0)
    student = methods.get("ul").run(run)
    for part, named in run.teacher.parts().items():
        pairs = zip(named, student.parts()[part], strict=True)
        assert all(torch.equal(a, b) for (_, a), (_, b) in pairs) is (part != "text"), part


@pytest.mark.parametrize("update", ["all", "fusion"])
def test_the_run_stops_when_deleted_pairs_score_like_unseen_ones(
    unlearn: Unlearn, scores: Scores, update: str
) -> None:
    run = unlearn("albef", "ul", task="nlvr", update=update)
    unseen = scores(run, run.teacher, run.validation).mean()
    assert scores(run, run.teacher, run.forget).mean() > unseen + 0.1
    student = methods.get("ul").run(run)
    report = run.reports[0]
    assert report.best_score == REACHED
    assert scores(run, student, run.forget).mean() <= unseen
    # One batch an epoch: not a step was taken after the epoch that reached it.
    assert report.steps == report.best_epoch + 1 < report.epochs


def test_the_threshold_is_the_mean_score_of_validation_pairs_under_the_teacher(
    unlearn: Unlearn, scores: Scores
) -> None:
    run = unlearn("gcn_bert", "ul")
    made = objective(run)
    expected = float(scores(run, run.teacher, run.validation).double().mean())
    assert made.threshold == pytest.approx(expected)
    mean = float(scores(run, run.teacher, run.forget).double().mean())
    value = made.validate()
    assert made.gap == pytest.approx(mean - expected)
    assert value == (REACHED if mean <= expected else pytest.approx(-mean))


def test_without_validation_pairs_the_budget_ends_the_run(unlearn: Unlearn) -> None:
    run = unlearn("gcn_bert", "ul", epochs=3, least_steps=0)
    run.validation = run.validation[:0]
    methods.get("ul").run(run)
    assert run.reports[0].epochs == run.reports[0].steps == 3
    assert run.reports[0].best_score < 0


def test_pairs_can_only_be_calibrated_to_validation_pairs(unlearn: Unlearn) -> None:
    run = unlearn("gcn_bert", "ul", aim="calibrated", trained=False)
    run.validation = run.validation[:0]
    with pytest.raises(InvalidSpec, match="needs validation pairs"):
        methods.get("ul").run(run)


def test_a_run_resumed_after_the_threshold_takes_no_further_step(
    unlearn: Unlearn, tmp_path: Path
) -> None:
    class Stop:
        """Cancels once the threshold was reached: nothing but empty epochs follow."""

        left = 10**9

        def check(self) -> None:
            self.left -= 1
            if self.left < 0:
                raise Cancelled("stopped by the test")

    whole = unlearn("albef", "ul", task="nlvr")
    methods.get("ul").run(whole)
    interrupted = unlearn("albef", "ul", task="nlvr")
    control = Stop()
    control.left = whole.reports[0].steps - 1
    interrupted.monitor = Monitor(state=tmp_path, save_every=0, control=control)
    with pytest.raises(Cancelled):
        methods.get("ul").run(interrupted)
    for _ in range(2):  # the second run starts from the end of the first
        resumed = unlearn("albef", "ul", task="nlvr")
        resumed.monitor = Monitor(state=tmp_path, save_every=0)
        methods.get("ul").run(resumed)
        assert resumed.reports == whole.reports


def test_an_epoch_after_a_restart_finds_out_where_it_stands(unlearn: Unlearn) -> None:
    made = objective(unlearn("gcn_bert", "ul"))
    made.threshold = 2.0
    assert made.gap is None
    assert made.batches(3, torch.Generator().manual_seed(0)) == []
    assert made.gap is not None


def test_a_model_that_trains_no_text_is_refused(unlearn: Unlearn) -> None:
    run = unlearn("gcn_bert", "ul", trained=False)
    parts = run.teacher.parts()
    named = {part: parameters for part, parameters in parts.items() if part != "text"}
    run.student = lambda: _without_text(run.teacher.clone(), named)  # type: ignore[method-assign]
    with pytest.raises(NotApplicable, match="use update = fusion"):
        methods.get("ul").run(run)


def _without_text(model: PairModel, named: dict) -> PairModel:
    model.set_trainable("all")
    for _, parameter in model.parts()["text"]:
        parameter.requires_grad = False
    return model
