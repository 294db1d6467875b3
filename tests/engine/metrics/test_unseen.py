from collections.abc import Callable

import numpy as np
import pytest

from engine.metrics import Evidence, Observed
from engine.metrics.unseen import unseen

Make = Callable[..., Evidence]
Observe = Callable[..., Observed]


@pytest.mark.parametrize(
    ("deleted", "others", "expected"),
    [
        ([0.9, 0.8], [0.1, 0.2], 1.0),
        ([0.1, 0.2], [0.9, 0.8], 0.0),
        # 0.1 beats nothing; 0.7 beats 0.3 and 0.5 and ties 0.7: 2.5 of 6.
        ([0.1, 0.7], [0.3, 0.5, 0.7], 2.5 / 6),
    ],
)
def test_the_value_is_the_chance_that_a_deleted_pair_scores_above_an_unseen_one(
    make_evidence: Make,
    observe: Observe,
    deleted: list[float],
    others: list[float],
    expected: float,
) -> None:
    evidence = make_evidence(deleted=observe(deleted), unseen=observe(others))
    metric = unseen(evidence, None, "after")[0]
    assert metric.value == pytest.approx(expected)
    assert (metric.name, metric.direction, metric.n) == ("unseen_auc", "near_half", 2)
    assert metric.details == {"n_unseen": len(others)}


def test_pairs_that_are_like_the_unseen_have_an_interval_around_one_half(
    make_evidence: Make, observe: Observe
) -> None:
    random = np.random.default_rng(0)
    evidence = make_evidence(
        deleted=observe(random.random(100)), unseen=observe(random.random(300))
    )
    low, high = unseen(evidence, None, "after")[0].interval
    assert low < 0.5 < high
    assert high - low < 0.2


def test_few_pairs_give_a_value_without_an_interval(make_evidence: Make, observe: Observe) -> None:
    evidence = make_evidence(deleted=observe([0.5]), unseen=observe([0.4] * 50))
    metric = unseen(evidence, None, "after")[0]
    assert (metric.value, metric.interval) == (1.0, None)


@pytest.mark.parametrize(
    ("deleted", "others", "reason"),
    [
        ([], [0.1], "1 deleted pairs; 0 came"),
        ([0.1], [], "1 unseen pairs; 0 came"),
        ([np.nan], [0.1], "1 scores or outputs"),
    ],
)
def test_it_is_unavailable_with_the_reason(
    make_evidence: Make, observe: Observe, deleted: list[float], others: list[float], reason: str
) -> None:
    evidence = make_evidence(deleted=observe(deleted), unseen=observe(others))
    metric = unseen(evidence, None, "after")[0]
    assert metric.value is None
    assert reason in metric.unavailable


def test_each_label_is_compared_with_unseen_pairs_of_that_label(
    make_evidence: Make, observe: Observe
) -> None:
    evidence = make_evidence(
        deleted=observe([0.9] * 5 + [0.1] * 5 + [0.5] * 2, labels=[0] * 5 + [1] * 5 + [2] * 2),
        unseen=observe([0.2] * 5 + [0.8] * 4, labels=[0] * 5 + [1] * 4),
    )
    found = unseen(evidence, None, "after")[0].details["per_label"]
    assert found["0"]["value"] == 1.0
    assert found["0"]["interval"] == pytest.approx([0.478, 1.0], abs=1e-3)
    assert found["1"]["unavailable"] == "needs at least 5 unseen pairs; 4 came"
    assert found["2"]["unavailable"] == "needs at least 5 deleted pairs; 2 came"
