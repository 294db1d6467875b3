from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.metrics import Evidence, Observed
from engine.metrics.forgetting import d_f, forgetting

Make = Callable[..., Evidence]
Observe = Callable[..., Observed]

scores = st.lists(st.floats(0, 1, width=16), min_size=1, max_size=20).map(np.array)


def test_d_f_of_a_small_example_is_derived_by_hand() -> None:
    # Retained (.2, .8) against deleted (.1, .8): .2 wins 1 of 2, .8 wins 1 and ties 1: AUC 2.5 / 4.
    assert d_f(np.array([0.2, 0.8]), np.array([0.1, 0.8])) == pytest.approx(37.5)


@pytest.mark.parametrize(
    ("retained", "deleted", "expected"),
    [([0.9] * 30, [0.1] * 30, 0.0), ([0.1] * 30, [0.9] * 30, 100.0), ([0.5] * 9, [0.5], 50.0)],
)
def test_d_f_is_0_when_forgotten_50_when_alike_and_100_when_preferred(
    make_evidence: Make,
    observe: Observe,
    retained: list[float],
    deleted: list[float],
    expected: float,
) -> None:
    evidence = make_evidence(retained=observe(retained), deleted=observe(deleted))
    metric = forgetting(evidence, None, "after")[0]
    assert metric.value == expected
    assert (metric.name, metric.unit, metric.direction) == ("d_f", "points", "lower")
    assert (metric.n, metric.moment, metric.subset) == (len(deleted), "after", "forget")


@given(scores, scores)
def test_d_f_stays_between_0_and_100_and_ignores_the_scale_of_scores(
    retained: np.ndarray, deleted: np.ndarray
) -> None:
    value = d_f(retained, deleted)
    assert 0 <= value <= 100
    assert d_f(8 * retained - 3, 8 * deleted - 3) == pytest.approx(value)


def test_when_all_retained_pairs_are_drawn_the_value_is_that_of_all(
    make_evidence: Make, observe: Observe
) -> None:
    random = np.random.default_rng(0)
    retained, deleted = random.random(40), random.random(40)
    evidence = make_evidence(retained=observe(retained), deleted=observe(deleted))
    assert forgetting(evidence, None, "after")[0].value == pytest.approx(d_f(retained, deleted))


def test_the_interval_holds_the_value(make_evidence: Make, observe: Observe) -> None:
    random = np.random.default_rng(0)
    evidence = make_evidence(
        retained=observe(random.random(500)), deleted=observe(random.random(50))
    )
    metric = forgetting(evidence, None, "before")[0]
    low, high = metric.interval
    assert low < metric.value < high
    assert 5 < high - low < 30


def test_five_draws_have_the_size_of_the_deleted_set_or_20(
    make_evidence: Make, observe: Observe
) -> None:
    for deleted, retained, size in ((50, 500, 50), (1, 500, 20), (50, 30, 30)):
        evidence = make_evidence(
            retained=observe(np.linspace(0, 1, retained)), deleted=observe([0.5] * deleted)
        )
        details = forgetting(evidence, None, "after")[0].details
        assert (details["draws"], details["draw_size"]) == (5, size)


def test_the_same_seed_gives_the_same_metric_and_another_draws_others(
    make_evidence: Make, observe: Observe
) -> None:
    random = np.random.default_rng(0)
    sets = {"retained": observe(random.random(900)), "deleted": observe(random.random(30))}
    first, again, other = (
        forgetting(make_evidence(seed=seed, **sets), None, "after")[0] for seed in (1, 1, 2)
    )
    assert first == again
    assert first.value != other.value


def test_each_label_is_compared_with_retained_pairs_of_that_label(
    make_evidence: Make, observe: Observe
) -> None:
    # Label 0 always wins over retained pairs of label 0, label 1 always loses.
    evidence = make_evidence(
        retained=observe([0.9] * 6 + [0.1] * 5 + [0.5] * 4, labels=[1] * 6 + [0] * 5 + [2] * 4),
        deleted=observe(
            [0.4] * 5 + [0.6] * 7 + [0.5] * 5 + [0.7], labels=[1] * 5 + [0] * 7 + [2] * 5 + [3]
        ),
    )
    found = forgetting(evidence, None, "after")[0].details["per_label"]
    assert {label: entry["value"] for label, entry in found.items()} == {
        "0": 100.0,
        "1": 0.0,
        "2": None,
        "3": None,
    }
    assert [(entry["n"], entry.get("against")) for entry in found.values()] == [
        (7, 5),
        (5, 6),
        (5, 4),
        (1, None),
    ]
    # No error in 5: the exact bound is .025 ** (1 / 5) = 0.478.
    assert found["1"]["interval"] == pytest.approx([0.0, 52.2], abs=0.1)
    assert found["2"]["unavailable"] == "needs at least 5 retained pairs; 4 came"
    assert found["3"]["unavailable"] == "needs at least 5 deleted pairs; 1 came"


def test_details_show_how_scores_are_spread(make_evidence: Make, observe: Observe) -> None:
    evidence = make_evidence(
        retained=observe([0.99, 0.97, 0.5]),
        deleted=observe([0.01, 0.06]),
        unseen=observe([0.52, np.nan]),
    )
    found = forgetting(evidence, None, "after")[0].details["histograms"]
    assert (found["low"], found["high"]) == (0.0, 1.0)
    # Bins are .05 wide; half is in the eleventh.
    assert found["deleted"] == [1, 1] + [0] * 18
    assert found["retained"] == [0] * 10 + [1] + [0] * 8 + [2]
    assert found["unseen"] == [0] * 10 + [1] + [0] * 9


def test_few_deleted_pairs_give_a_value_without_an_interval(
    make_evidence: Make, observe: Observe
) -> None:
    evidence = make_evidence(retained=observe([0.9] * 10), deleted=observe([0.1] * 4))
    metric = forgetting(evidence, None, "after")[0]
    assert metric.value == 0.0
    assert metric.interval is None


@pytest.mark.parametrize(
    ("retained", "deleted", "reason"),
    [
        ([0.5], [], "at least 1 deleted pairs; 0 came"),
        ([], [0.5], "at least 1 retained pairs; 0 came"),
        ([0.5, np.nan], [np.inf], "2 scores or outputs"),
    ],
)
def test_d_f_is_unavailable_with_the_reason_and_never_a_default(
    make_evidence: Make, observe: Observe, retained: list[float], deleted: list[float], reason: str
) -> None:
    evidence = make_evidence(retained=observe(retained), deleted=observe(deleted))
    metric = forgetting(evidence, None, "after")[0]
    assert metric.value is None
    assert metric.interval is None
    assert reason in metric.unavailable
