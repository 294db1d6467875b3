from collections.abc import Callable

import pytest
import torch

from engine.errors import NotApplicable
from engine.families import PairModel, families
from engine.inputs import Inputs
from engine.methods import methods
from engine.monitor import Monitor
from engine.training import TaskObjective, fit, recipe_schedule
from engine.unlearning import Unlearning

Unlearn = Callable[..., Unlearning]


def test_retrain_is_the_training_that_never_saw_the_deleted_pairs(unlearn: Unlearn) -> None:
    run = unlearn("gcn_bert", "retrain")
    assert run.recipe is not None
    run.recipe = run.recipe.model_copy(update={"epochs": 3})
    retrained = methods.get("retrain").run(run)
    made: tuple[PairModel, Inputs] = run.fresh()
    model, inputs = made
    objective = TaskObjective(run.task, model, inputs, run.retain, run.validation, 12)
    schedule = recipe_schedule(run.recipe)
    fit(model, objective, schedule, phase="unlearn", seed=run.seed, monitor=Monitor())
    for ours, theirs in zip(retrained.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_retrain_refuses_fusion_only_with_the_reason() -> None:
    method = methods.get("retrain")
    for family in families:
        reason = method.refusal(family, "retrieval", "fusion")
        assert reason is not None
        assert "use update = all" in reason
        assert method.refusal(family, "retrieval", "all") is None


def test_retrain_needs_the_recipe_of_the_original(unlearn: Unlearn) -> None:
    run = unlearn("gcn_bert", "retrain")
    run.recipe = None
    with pytest.raises(NotApplicable, match="names no recipe"):
        methods.get("retrain").run(run)
