from collections.abc import Callable

import pytest
from torch import Tensor

from engine.families import PairModel
from engine.inputs import Inputs
from engine.methods import methods
from engine.methods.finetune import FineTuneParams, _schedule
from engine.tasks import TrainingRecipe
from engine.unlearning import Unlearning

Unlearn = Callable[..., Unlearning]


def test_the_learning_rate_is_larger_than_the_original_one() -> None:
    recipe = TrainingRecipe(learning_rate=1e-3)
    assert _schedule(FineTuneParams(), recipe).learning_rate == pytest.approx(2e-3)
    assert _schedule(FineTuneParams(rate_factor=5), recipe).learning_rate == pytest.approx(5e-3)
    assert _schedule(FineTuneParams(learning_rate=0.1), recipe).learning_rate == 0.1


def test_finetune_sees_retained_pairs_only(
    unlearn: Unlearn, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = unlearn("gcn_bert", "finetune", epochs=2, batch_size=5)
    seen: set[int] = set()
    original = run.task.loss

    def watching(model: PairModel, inputs: Inputs, rows: Tensor) -> dict[str, Tensor]:
        seen.update(rows.tolist())
        return original(model, inputs, rows)

    monkeypatch.setattr(run.task, "loss", watching)
    methods.get("finetune").run(run)
    assert seen == set(run.retain.tolist())


def test_without_a_recipe_the_rate_of_the_task_is_taken(unlearn: Unlearn) -> None:
    run = unlearn("gcn_bert", "finetune", epochs=1)
    run.recipe = None
    methods.get("finetune").run(run)
    assert run.reports[0].epochs == 1
