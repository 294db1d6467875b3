"""What every task with labels must hold to."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from engine.data.pairs import PairDataset
from engine.errors import DataError, InvalidSpec, NonFiniteLoss
from engine.families import Albef, GcnBert, PairModel
from engine.inputs import Inputs
from engine.tasks import Classification, GraphText, Nlvr, VisualEntailment, tasks

Labelled = Callable[[type[Classification]], tuple[PairModel, PairDataset]]
KINDS = (GraphText, VisualEntailment, Nlvr)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> type[Classification]:
    return request.param


@pytest.fixture
def model(kind: type[Classification], labelled: Labelled) -> PairModel:
    return labelled(kind)[0]


@pytest.fixture
def data(kind: type[Classification], labelled: Labelled) -> PairDataset:
    return labelled(kind)[1]


@pytest.fixture
def inputs(model: PairModel, data: PairDataset) -> Inputs:
    return Inputs(model, data)


def test_a_model_that_diverged_has_no_accuracy(
    kind: type[Classification], model: PairModel, inputs: Inputs
) -> None:
    assert isinstance(model, Albef | GcnBert)
    with torch.no_grad():
        model.head.weight.fill_(math.nan)
    for measure in (kind().utility, kind().validate):
        with pytest.raises(NonFiniteLoss, match="probabilities of classes must be finite"):
            measure(model, inputs, torch.arange(4))


def test_each_is_registered_under_its_own_name(kind: type[Classification]) -> None:
    assert tasks.get(kind.name) is kind


def test_the_loss_is_the_cross_entropy_by_hand(
    kind: type[Classification], model: PairModel, inputs: Inputs
) -> None:
    assert isinstance(model, Albef | GcnBert)
    classes = model.head.out_features
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.zero_()
        model.head.bias[1] = math.log(3)
    rows = torch.tensor([0, 1, 3])
    # Class 1 has probability 3 / (C + 2), every other class 1 / (C + 2).
    odds = [3 if label == 1 else 1 for label in inputs.labels[rows].tolist()]
    expected = -sum(math.log(odd / (classes + 2)) for odd in odds) / 3
    loss = kind().loss(model, inputs, rows)
    assert loss["class"].item() == pytest.approx(expected, rel=1e-5)


def test_the_score_is_the_probability_of_the_true_class(
    kind: type[Classification], model: PairModel, inputs: Inputs
) -> None:
    rows = torch.tensor([4, 7])
    outputs = kind().outputs(model, inputs, rows)
    torch.testing.assert_close(outputs.sum(1), torch.ones(2))
    labels = inputs.labels[rows].tolist()
    expected = [outputs[row, label].item() for row, label in enumerate(labels)]
    assert kind().scores(model, inputs, rows).tolist() == expected


def test_training_learns_the_rule_of_the_texts(
    kind: type[Classification], model: PairModel, inputs: Inputs
) -> None:
    task, rows = kind(), inputs.split("train")
    rate, epochs = (1e-2, 40) if kind is GraphText else (5e-3, 12)
    optimiser = torch.optim.AdamW(model.set_trainable("all"), rate)
    torch.manual_seed(0)
    for epoch in range(epochs):
        generator = torch.Generator().manual_seed(epoch)
        for batch in task.batches(inputs, rows, 8, generator):
            loss = task.loss(model, inputs, batch)["class"]
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    assert task.validate(model, inputs, rows) > 95
    # The words that decide occur in the training texts as well.
    assert task.validate(model, inputs, inputs.split("test")) > 70


def test_utility_names_accuracy_as_d_test_and_has_each_label(
    kind: type[Classification], model: PairModel, inputs: Inputs, data: PairDataset
) -> None:
    rows = inputs.split("test")
    made = kind().utility(model, inputs, rows)
    assert [metric.name for metric in made] == ["d_test", "f1"]
    assert made[0].value == pytest.approx(kind().validate(model, inputs, rows))
    names = list(kind.classes) or ["0", "1"]
    for metric in made:
        assert metric.n == len(data.split("test"))
        assert list(metric.details["per_label"]) == names
        assert sum(one["n"] for one in metric.details["per_label"].values()) == metric.n


def test_no_pair_is_unavailable_and_not_zero(
    kind: type[Classification], model: PairModel, inputs: Inputs
) -> None:
    none = torch.zeros(0, dtype=torch.int64)
    made = kind().utility(model, inputs, none)
    assert all(metric.value is None and metric.unavailable for metric in made)
    assert kind().validate(model, inputs, none) == float("-inf")


def test_data_that_fit_pass_the_check(kind: type[Classification], data: PairDataset) -> None:
    kind().check(data)


@pytest.mark.parametrize("label", [None, 3])
def test_a_label_outside_of_the_classes_is_named_with_its_pair(
    kind: type[Classification], data: PairDataset, label: int | None
) -> None:
    other = replace(data.pairs[3], label=label, line=4)
    pairs = [*data.pairs[:3], other, *data.pairs[4:]]
    reason = f"{data.name}, line 4: pair '{other.id}' has label {label}; {kind.name} needs 0 to "
    with pytest.raises(DataError) as caught:
        kind().check(replace(data, pairs=pairs))
    assert str(caught.value).startswith(reason)


def test_one_class_alone_is_refused(kind: type[Classification], data: PairDataset) -> None:
    pairs = [replace(pair, label=0) for pair in data.pairs]
    with pytest.raises(InvalidSpec, match="has a label above 0"):
        kind().check(replace(data, pairs=pairs, classes=1))


def test_data_without_labels_are_refused(kind: type[Classification], data: PairDataset) -> None:
    with pytest.raises(InvalidSpec, match=f"{kind.name} needs labels"):
        kind().check(replace(data, classes=None))


def test_a_pair_with_another_number_of_items_is_named(
    kind: type[Classification], data: PairDataset
) -> None:
    items = data.pairs[5].items
    other = replace(data.pairs[5], items=items[:1] if len(items) == 2 else items * 2)
    with pytest.raises(DataError, match=rf"'{other.id}' has {len(other.items)}; {kind.name} needs"):
        kind().check(replace(data, pairs=[other]))


def test_a_family_without_a_class_head_is_refused_with_the_reason(
    kind: type[Classification], model: PairModel
) -> None:
    class Headless(type(model)):  # type: ignore[misc]
        classifies = False

    assert kind.refusal(type(model)) is None
    assert f"{kind.name} needs a class head" in (kind.refusal(Headless) or "")
