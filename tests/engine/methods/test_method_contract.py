"""What holds for every registered method."""

from collections.abc import Callable

import pytest
import torch

from engine.errors import InvalidSpec
from engine.families import PairModel
from engine.methods import MethodParams, methods
from engine.spec import Update
from engine.unlearning import Unlearning

Unlearn = Callable[..., Unlearning]
SHORT: dict[str, dict[str, object]] = {
    "multidelete": {"epochs": 2, "least_steps": 2},
    "finetune": {"epochs": 2},
    "retrain": {},
}
CASES = [
    (name, family, update)
    for name in methods
    for family, task in (("albef", "retrieval"), ("gcn_bert", "graph_text"))
    for update in ("all", "fusion")
    if methods.get(name).refusal(family, task, update) is None
]


def weights(model: PairModel) -> dict[str, bytes]:
    state = model.state_dict()
    return {name: tensor.detach().numpy().tobytes() for name, tensor in state.items()}


def start(unlearn: Unlearn, name: str, family: str, update: Update) -> Unlearning:
    run = unlearn(family, name, update=update, **SHORT[name])
    if run.recipe is not None:
        run.recipe = run.recipe.model_copy(update={"epochs": 2})
    return run


@pytest.mark.parametrize(("name", "family", "update"), CASES)
def test_a_method_gives_the_same_new_model_each_time_and_leaves_the_teacher_alone(
    unlearn: Unlearn, name: str, family: str, update: Update
) -> None:
    run = start(unlearn, name, family, update)
    before = weights(run.teacher)
    first = methods.get(name).run(run)
    second = methods.get(name).run(start(unlearn, name, family, update))
    assert weights(run.teacher) == before
    assert weights(first) == weights(second)
    assert weights(first) != before
    assert all(torch.isfinite(tensor).all() for tensor in first.parameters())
    assert run.reports[0].steps > 0
    assert not run.inputs._frozen


@pytest.mark.parametrize("name", list(methods))
def test_a_method_says_what_it_is_for_and_what_it_cannot(name: str) -> None:
    method = methods.get(name)
    assert method.name == name
    assert method.summary.endswith(".")
    assert method.scopes
    assert method.limitations
    assert all(sentence.endswith(".") for sentence in method.limitations)


@pytest.mark.parametrize("name", list(methods))
def test_parameters_have_defaults_and_descriptions_or_bounds(name: str) -> None:
    schema = methods.get(name).params.model_json_schema()
    methods.get(name).params()
    for field in schema["properties"].values():
        bounded = "minimum" in str(field) or "exclusiveMinimum" in str(field) or "enum" in field
        assert bounded
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("name", list(methods))
def test_parameters_of_another_method_are_refused(unlearn: Unlearn, name: str) -> None:
    class Other(MethodParams):
        """Parameters of no method."""

    run = unlearn("gcn_bert", name)
    run.params = Other()
    with pytest.raises(InvalidSpec, match="Other came"):
        methods.get(name).run(run)
