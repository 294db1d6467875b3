import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from app.audit.readings import METRICS
from engine.audit import Auditor, cost_metrics, find
from engine.data.pairs import PairDataset
from engine.division import Division, divide
from engine.errors import Cancelled, NonFiniteLoss
from engine.families import PairModel
from engine.inputs import Inputs
from engine.methods.selection import excess_metric
from engine.monitor import Monitor
from engine.spec import Cost, DataSpec, Progress, RunSpec
from engine.tasks import GraphText, Retrieval, Task
from engine.tasks.recall import recall_metrics

BEFORE_FORGOTTEN, NOW = ("g0", "g1"), ("g2", "g3", "g4", "g5", "g6")


def divided(dataset: PairDataset, **changes: object) -> Division:
    data = DataSpec(manifest="manifest.jsonl", root=".")
    given = {"action": "unlearn", "data": data, "family": "gcn_bert", "task": "graph_text"}
    return divide(dataset, RunSpec.model_validate({**given, **changes}))


@pytest.fixture
def division(graph_data: PairDataset) -> Division:
    requests = {"a": list(NOW[:3]), "b": list(NOW[2:])}
    return divided(graph_data, forget=requests, forgotten={"z": list(BEFORE_FORGOTTEN)})


@pytest.fixture
def model(tiny: Callable[..., PairModel]) -> PairModel:
    return tiny("gcn_bert")


@pytest.fixture
def inputs(model: PairModel, graph_data: PairDataset) -> Inputs:
    return Inputs(model, graph_data)


def auditor(
    division: Division, task: Task | None = None, monitor: Monitor | None = None
) -> Auditor:
    return Auditor(task or GraphText(), division, seed=0, monitor=monitor or Monitor())


def test_a_view_holds_the_scores_of_the_model(
    division: Division, model: PairModel, inputs: Inputs
) -> None:
    view = auditor(division).view(model, inputs, "before")
    observed = view.of(division.forget)
    expected = GraphText().scores(model, inputs, division.forget)
    np.testing.assert_allclose(observed.scores, expected.numpy(), rtol=1e-5)
    np.testing.assert_allclose(observed.outputs.sum(1), 1, rtol=1e-5)
    assert observed.labels is not None
    assert observed.labels.tolist() == inputs.labels[division.forget].tolist()


@pytest.mark.parametrize(
    ("answer", "told"), [("scores", "scores of pairs"), ("outputs", "output distributions")]
)
def test_what_a_diverged_model_says_is_not_measured(
    division: Division,
    model: PairModel,
    inputs: Inputs,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    told: str,
) -> None:
    task, sound = GraphText(), GraphText()
    said = getattr(sound, answer)
    monkeypatch.setattr(task, "scores", sound.scores)  # its own are made of its outputs
    monkeypatch.setattr(task, answer, lambda *given: said(*given) * float("nan"))
    with pytest.raises(NonFiniteLoss, match=told):
        auditor(division, task).view(model, inputs, "after")


def test_every_deleted_subset_is_measured_with_its_own_pairs(
    division: Division, model: PairModel, inputs: Inputs
) -> None:
    made = auditor(division)
    view = made.view(model, inputs, "after")
    found = made.metrics(view, view, "after")
    sizes = {metric.subset: metric.n for metric in found if metric.name == "d_f"}
    assert sizes == {"forget": 5, "forgotten": 7, "request:a": 3, "request:b": 3}
    assert {metric.moment for metric in found} == {"after"}


def test_a_view_holds_the_unimodal_embeddings_of_deleted_and_of_some_retained_pairs(
    division: Division, model: PairModel, inputs: Inputs
) -> None:
    made = auditor(division)
    view = made.view(model, inputs, "before")
    with torch.no_grad():
        item, text = inputs.encode(model.eval(), division.forget)
    embedded = view.vectors_of(division.forget)
    np.testing.assert_allclose(embedded.items, item.pooled.numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(embedded.texts, text.pooled.numpy(), rtol=1e-4, atol=1e-6)
    assert embedded.labels.tolist() == inputs.labels[division.forget].tolist()
    assert len(view.vectors_of(made.probed)) == len(division.retain)
    assert not torch.isin(made.probed, division.deleted).any()


def test_every_metric_has_n_a_direction_and_a_value_or_a_reason(
    division: Division, model: PairModel, inputs: Inputs
) -> None:
    made = auditor(division)
    before, after = (made.view(model, inputs, moment) for moment in ("before", "after"))
    found = made.metrics(before, None, "before") + made.metrics(after, before, "after")
    assert {metric.name for metric in found} >= {
        *("d_f", "unseen_auc", "forget_accuracy", "probe_item", "probe_text", "mi_ratio"),
        *("mi_attack_auc", "mi_tpr_at_1pct_fpr", "ulira_auc", "ulira_tpr_at_1pct_fpr"),
    }
    for metric in found:
        assert (metric.value is None) == (metric.unavailable is not None), metric.name
        assert metric.interval is None or metric.interval[0] <= metric.value <= metric.interval[1]
        json.dumps(metric.details, allow_nan=False)


def test_every_metric_of_an_audit_is_explained_to_the_readers_of_a_report(
    division: Division, model: PairModel, inputs: Inputs
) -> None:
    made = auditor(division)
    view = made.view(model, inputs, "after")
    names = {metric.name for metric in made.metrics(view, view, "after")}
    names |= {metric.name for metric in recall_metrics(None)}
    names |= {metric.name for metric in cost_metrics(COST, 4)}
    names.add(excess_metric(0, 0, 0, 1).name)
    assert names == set(METRICS)


def test_what_reference_models_say_reaches_the_metrics(
    division: Division, model: PairModel, inputs: Inputs
) -> None:
    made = auditor(division)
    view = replace(made.view(model, inputs, "after"), references="the reason")
    found = find(made.metrics(view, view, "after"), "ulira_auc", "after", "forget")
    assert found is not None
    assert found.unavailable == "the reason"


def test_unseen_are_test_pairs_and_validation_pairs_only_where_there_are_none(
    division: Division, model: PairModel, inputs: Inputs
) -> None:
    for given, wanted in (
        (division, division.test),
        (replace(division, test=division.test[:0]), division.validation),
    ):
        made = auditor(given)
        found = made.metrics(made.view(model, inputs, "after"), None, "after")
        metric = find(found, "unseen_auc", "after", "forget")
        assert metric is not None
        assert metric.details["n_unseen"] == len(wanted)
        scores = GraphText().scores(model, inputs, wanted)
        deleted = GraphText().scores(model, inputs, given.forget)
        assert metric.value == pytest.approx((deleted[:, None] > scores[None]).double().mean())


def test_utility_is_measured_on_test_and_on_validation(
    division: Division, model: PairModel, inputs: Inputs, graph_data: PairDataset
) -> None:
    made = auditor(division)
    found = made.metrics(made.view(model, inputs, "before"), None, "before")
    for subset in ("test", "val"):
        metric = find(found, "d_test", "before", subset)
        assert metric is not None
        assert metric.n == len(graph_data.split(subset))
    assert find(found, "d_test", "after", "test") is None


def test_a_model_without_deleted_pairs_has_utility_only(
    graph_data: PairDataset, model: PairModel, inputs: Inputs
) -> None:
    made = auditor(divided(graph_data, action="train"))
    found = made.metrics(made.view(model, inputs, "after"), None, "after")
    assert {metric.subset for metric in found} == {"test", "val"}


def test_the_retained_sample_holds_no_deleted_pair(division: Division) -> None:
    sample = auditor(division).retained
    assert len(sample) == len(division.retain)
    assert not torch.isin(sample, division.deleted).any()


def test_the_candidates_of_retrieval_are_retained_pairs(
    image_data: PairDataset, tiny: Callable[..., PairModel]
) -> None:
    first = [pair.id for pair in image_data.split("train")][:10]
    division = divided(image_data, forget={"a": first})
    model = tiny("albef")
    inputs = Inputs(model, image_data)
    auditor(division, Retrieval()).view(model, inputs, "before")
    assert not torch.isin(inputs.gallery, division.deleted).any()


def test_an_audit_can_be_cancelled(division: Division, model: PairModel, inputs: Inputs) -> None:
    class Stop:
        def check(self) -> None:
            raise Cancelled("enough")

    with pytest.raises(Cancelled, match="enough"):
        auditor(division, monitor=Monitor(control=Stop())).view(model, inputs, "before")


def test_an_audit_tells_its_progress(division: Division, model: PairModel, inputs: Inputs) -> None:
    events: list[Progress] = []
    auditor(division, monitor=Monitor(on_progress=events.append)).view(model, inputs, "before")
    assert events[0].phase == "evaluate_before"
    assert events[0].total == len(inputs)


COST = Cost(
    seconds=3,
    method_seconds=2,
    peak_memory_bytes=10,
    trained_parameters=7,
    samples_seen=9,
    steps=1,
)


def test_cost_metrics_carry_what_the_run_took() -> None:
    found = {metric.name: (metric.value, metric.n) for metric in cost_metrics(COST, 4)}
    assert found == {
        "method_seconds": (2, 4),
        "peak_memory_bytes": (10, 4),
        "trained_parameters": (7, 4),
        "samples_seen": (9, 4),
    }
