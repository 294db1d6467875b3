import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from engine.data.pairs import PairDataset
from engine.errors import DataError, InvalidSpec
from engine.families import Albef, GcnBert, PairModel
from engine.inputs import Inputs
from engine.tasks import GraphText
from engine.tasks.graph_text import _accuracy, _f1, _f1_of_cells


@pytest.fixture
def model(tiny: Callable[..., PairModel]) -> PairModel:
    return tiny("gcn_bert")


@pytest.fixture
def inputs(model: PairModel, graph_data: PairDataset) -> Inputs:
    return Inputs(model, graph_data)


def test_the_loss_is_the_cross_entropy_by_hand(model: PairModel, inputs: Inputs) -> None:
    assert isinstance(model, GcnBert)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.copy_(torch.tensor([0.0, math.log(3)]))
    rows = torch.tensor([0, 1, 3])
    assert inputs.labels[rows].tolist() == [0, 1, 1]
    # Probabilities are 1/4 and 3/4 for every pair.
    expected = -(math.log(0.25) + 2 * math.log(0.75)) / 3
    loss = GraphText().loss(model, inputs, rows)
    assert loss["class"].item() == pytest.approx(expected, rel=1e-5)


def test_the_score_is_the_probability_of_the_true_class(model: PairModel, inputs: Inputs) -> None:
    rows = torch.tensor([4, 7])
    outputs = GraphText().outputs(model, inputs, rows)
    torch.testing.assert_close(outputs.sum(1), torch.ones(2))
    scores = GraphText().scores(model, inputs, rows)
    assert scores.tolist() == [outputs[0, 0].item(), outputs[1, 1].item()]


def test_training_learns_the_rule_of_the_texts(model: PairModel, inputs: Inputs) -> None:
    task, rows = GraphText(), inputs.split("train")
    optimiser = torch.optim.AdamW(model.set_trainable("all"), 1e-2)
    torch.manual_seed(0)
    for epoch in range(40):
        generator = torch.Generator().manual_seed(epoch)
        for batch in task.batches(inputs, rows, 8, generator):
            loss = task.loss(model, inputs, batch)["class"]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    assert task.validate(model, inputs, rows) == 100
    # The rule is in the verb, and the verbs of the test split occur in training.
    assert task.validate(model, inputs, inputs.split("test")) > 70


def test_accuracy_and_f1_are_the_ones_by_hand() -> None:
    truth = np.array([1, 1, 1, 0, 0, 0, 0, 0])
    guess = np.array([1, 1, 0, 1, 0, 0, 0, 0])
    accuracy, f1 = _accuracy(truth, guess), _f1(truth, guess, 2)
    assert accuracy.value == pytest.approx(75)
    # Wilson 1927 for 6 of 8: 0.409 to 0.929.
    assert accuracy.interval == pytest.approx((40.93, 92.85), abs=0.01)
    # Precision 2/3, recall 2/3.
    assert f1.value == pytest.approx(200 / 3)
    assert f1.interval is not None
    assert f1.interval[0] < 200 / 3 < f1.interval[1]


@pytest.mark.parametrize(("classes", "average"), [(2, "binary"), (4, "macro")])
def test_f1_of_many_tables_is_that_of_the_library_for_each(classes: int, average: str) -> None:
    rng = np.random.default_rng(0)
    cells = np.stack(np.divmod(np.arange(classes**2), classes))
    draws = rng.multinomial(30, rng.dirichlet(np.ones(classes**2)), 50)
    expected = [
        f1_score(*cells, sample_weight=draw, average=average, zero_division=0.0) for draw in draws
    ]
    np.testing.assert_allclose(_f1_of_cells(cells, draws, average), expected)


def test_f1_of_three_classes_is_the_mean_over_them() -> None:
    truth, guess = np.array([0, 1, 2, 2]), np.array([0, 1, 2, 0])
    # F1 is 2/3, 1 and 2/3.
    assert _f1(truth, guess, 3).value == pytest.approx(100 * (2 / 3 + 1 + 2 / 3) / 3)


def test_utility_names_accuracy_as_d_test(model: PairModel, inputs: Inputs) -> None:
    rows = inputs.split("test")
    made = GraphText().utility(model, inputs, rows)
    assert [m.name for m in made] == ["d_test", "f1"]
    assert made[0].value == pytest.approx(GraphText().validate(model, inputs, rows))
    assert made[0].n == 8


def test_no_pair_is_unavailable_and_not_zero(model: PairModel, inputs: Inputs) -> None:
    made = GraphText().utility(model, inputs, torch.zeros(0, dtype=torch.int64))
    assert all(m.value is None and m.unavailable for m in made)


def test_a_pair_without_a_label_is_named(graph_data: PairDataset) -> None:
    GraphText().check(graph_data)
    pairs = [*graph_data.pairs[:3], replace(graph_data.pairs[3], label=None)]
    with pytest.raises(DataError, match="'g3' has label None"):
        GraphText().check(replace(graph_data, pairs=pairs))
    with pytest.raises(InvalidSpec, match="has none"):
        GraphText().check(replace(graph_data, classes=None))


def test_families_of_another_modality_are_refused_with_the_reason() -> None:
    assert GraphText.refusal(GcnBert) is None
    reason = GraphText.refusal(Albef)
    assert reason is not None
    assert "graph" in reason
