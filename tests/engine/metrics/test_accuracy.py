from collections.abc import Callable

import numpy as np
import pytest

from engine.metrics import Evidence, Observed
from engine.metrics.accuracy import accuracy

Make = Callable[..., Evidence]
Observe = Callable[..., Observed]


def _classified(observe: Observe, predicted: list[int], labels: list[int] | None) -> Observed:
    """Return pairs that a model gives the classes ``predicted`` of three."""
    return observe(np.full(len(predicted), 0.5), np.eye(3)[predicted], labels)


def test_the_value_is_the_share_of_deleted_pairs_that_keep_their_label(
    make_evidence: Make, observe: Observe
) -> None:
    evidence = make_evidence(
        deleted=_classified(observe, [0] * 5 + [1, 1, 0, 0, 0], [0] * 5 + [1] * 5),
        retained=_classified(observe, [0, 1, 2, 2], [0, 1, 2, 1]),
        unseen=_classified(observe, [2, 1], [0, 1]),
    )
    metric = accuracy(evidence, None, "after")[0]
    assert (metric.name, metric.value, metric.n) == ("forget_accuracy", 70.0, 10)
    assert (metric.direction, metric.unit) == ("none", "points")
    assert metric.interval[0] < 70 < metric.interval[1]
    assert metric.details["retained"] == {"value": 75.0, "n": 4}
    assert metric.details["unseen"] == {"value": 50.0, "n": 2}
    per_label = metric.details["per_label"]
    assert (per_label["0"]["value"], per_label["1"]["value"]) == (100.0, 40.0)


def test_few_pairs_give_a_value_without_an_interval(make_evidence: Make, observe: Observe) -> None:
    evidence = make_evidence(deleted=_classified(observe, [0, 0], [0, 1]))
    metric = accuracy(evidence, None, "before")[0]
    assert (metric.value, metric.interval) == (50.0, None)
    assert "5 deleted pairs; 1 came" in metric.details["per_label"]["0"]["unavailable"]


@pytest.mark.parametrize(
    ("predicted", "labels", "reason"),
    [([0, 1], None, "have no labels"), ([], [], "1 deleted pairs; 0 came")],
)
def test_it_is_unavailable_with_the_reason(
    make_evidence: Make,
    observe: Observe,
    predicted: list[int],
    labels: list[int] | None,
    reason: str,
) -> None:
    evidence = make_evidence(deleted=_classified(observe, predicted, labels))
    metric = accuracy(evidence, None, "after")[0]
    assert metric.value is None
    assert reason in metric.unavailable


def test_outputs_that_are_not_finite_make_it_unavailable(
    make_evidence: Make, observe: Observe
) -> None:
    deleted = _classified(observe, [0, 1], [0, 1])
    deleted.outputs[0, 0] = np.nan
    assert "not finite" in accuracy(make_evidence(deleted=deleted), None, "after")[0].unavailable
