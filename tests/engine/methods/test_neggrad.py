from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from engine.errors import NonFiniteLoss
from engine.families import PairModel
from engine.inputs import Inputs
from engine.methods import methods
from engine.methods.neggrad import NegGrad, NegGradParams
from engine.unlearning import Unlearning

Unlearn = Callable[..., Unlearning]
Scores = Callable[[Unlearning, PairModel, Tensor], Tensor]


def losses(run: Unlearning, model: PairModel, rows: Tensor) -> float:
    torch.manual_seed(0)
    with torch.no_grad():
        return float(sum(run.task.loss(model, run.inputs, rows).values()))


@pytest.mark.parametrize("update", ["all", "fusion"])
def test_the_loss_on_deleted_pairs_rises_and_scores_fall(
    unlearn: Unlearn, scores: Scores, update: str
) -> None:
    params = {"utility_drop": 100, "target": 0, "patience": 20}
    run = unlearn("albef", "neggrad", task="nlvr", update=update, **params)
    student = methods.get("neggrad").run(run)
    assert losses(run, student, run.forget) > 2 * losses(run, run.teacher, run.forget)
    fallen = scores(run, run.teacher, run.forget) - scores(run, student, run.forget)
    assert fallen.mean() > 0.1
    others = scores(run, run.teacher, run.retain) - scores(run, student, run.retain)
    assert fallen.mean() > others.mean()


def test_an_ascent_that_explodes_ends_with_its_best_epoch(unlearn: Unlearn) -> None:
    # At this rate one step wrecks the model: the run goes on at the ceiling and then gives up.
    run = unlearn("gcn_bert", "neggrad", learning_rate=1.0, patience=3)
    student = methods.get("neggrad").run(run)
    report = run.reports[0]
    assert report.epochs < run.parameters_as(NegGradParams).least_steps
    assert report.epochs == report.best_epoch + 1 + 3 * 2  # validated every second epoch
    again = NegGrad(run, student, run.parameters_as(NegGradParams))
    assert again.validate() == pytest.approx(report.best_score)
    [excess] = run.measured
    assert (excess.value > 0) is (report.best_score < 0)


def test_the_run_ends_when_validations_bring_nothing_better(unlearn: Unlearn) -> None:
    run = unlearn("gcn_bert", "neggrad", patience=2, epochs=1000, learning_rate=1e-6)
    methods.get("neggrad").run(run)
    assert run.reports[0].epochs < 1000


def test_scores_that_are_no_numbers_are_never_kept(
    unlearn: Unlearn, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = unlearn("gcn_bert", "neggrad", epochs=2, least_steps=0)
    teachers = run.task.scores

    def broken(model: PairModel, inputs: Inputs, rows: Tensor) -> Tensor:
        found = teachers(model, inputs, rows)
        return found if model is run.teacher else found * float("nan")

    monkeypatch.setattr(run.task, "scores", broken)
    with pytest.raises(NonFiniteLoss, match="nothing was saved"):
        methods.get("neggrad").run(run)
