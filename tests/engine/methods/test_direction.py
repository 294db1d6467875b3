"""Every method moves the deleted pairs the right way on a model that knows its pairs by heart."""

from collections.abc import Callable

import pytest
from torch import Tensor

from engine.families import PairModel
from engine.methods import methods
from engine.unlearning import Unlearning

KEEP_THE_LOWEST: dict[str, object] = {"utility_drop": 100, "target": 0}
CASES: dict[str, tuple[str, dict[str, object]]] = {
    "multidelete": ("visual_entailment", {"epochs": 40, "least_steps": 0, **KEEP_THE_LOWEST}),
    "finetune": ("visual_entailment", {"epochs": 4, "batch_size": 12}),
    "retrain": ("visual_entailment", {}),
    "neggrad": ("visual_entailment", {"patience": 20, **KEEP_THE_LOWEST}),
    "ul": ("visual_entailment", {}),
    # The contraction is 1/2: the steps count here, and what noise they leave is next to none.
    "dtd": (
        "visual_entailment",
        {"steps": 40, "weight_decay": 1.0, "batch_size": 12, "learning_rate": 4e-3},
    ),
    # With labels it is a guess away from 1 already: gradients are too small for one Newton step.
    "lcodec": ("retrieval", {"passes": 16, "noise": 0.0}),
    "erm_ktp": ("visual_entailment", {}),
}


@pytest.mark.parametrize("name", list(methods))
def test_deleted_pairs_score_lower_than_before(
    unlearn: Callable[..., Unlearning],
    scores: Callable[[Unlearning, PairModel, Tensor], Tensor],
    name: str,
) -> None:
    task, params = CASES[name]
    run = unlearn("albef", name, task=task, **params)
    assert run.recipe is not None
    run.recipe = run.recipe.model_copy(update={"epochs": 12})
    made = run.fresh()
    run.fresh = lambda: made
    before = scores(run, run.teacher, run.forget).mean()
    student = methods.get(name).run(run)
    if student is made[0]:
        run.inputs = made[1]  # a retrained model has tokens of its own
    assert scores(run, student, run.forget).mean() < before - 0.1
