import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from engine.metrics.ranking import (
    Ranked,
    auc,
    bootstrap,
    bootstrap_auc,
    bootstrap_rate,
    bootstrap_share,
    percentiles,
    rate_at,
)

# Few distinct values, so that ties are common.
groups = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=25).map(np.array)


def test_the_auc_of_a_small_example_is_the_share_of_pairs_won() -> None:
    # Against (1, 3): 2 wins 1 of 2, 3 wins 1 and ties 1, 4 wins 2. In all 1 + 1.5 + 2 of 6.
    assert auc(np.array([2.0, 3.0, 4.0]), np.array([1.0, 3.0])) == pytest.approx(4.5 / 6)


@given(groups, groups)
def test_the_auc_is_the_one_of_scikit_learn(positives: np.ndarray, negatives: np.ndarray) -> None:
    labels = np.repeat([1, 0], [len(positives), len(negatives)])
    expected = roc_auc_score(labels, np.concatenate([positives, negatives]))
    assert auc(positives, negatives) == pytest.approx(expected)


@given(groups, groups)
def test_swapping_the_groups_mirrors_the_auc(positives: np.ndarray, negatives: np.ndarray) -> None:
    assert auc(positives, negatives) + auc(negatives, positives) == pytest.approx(1.0)


@given(groups, groups, st.randoms())
def test_the_aucs_of_resamplings_are_those_of_the_drawn_values(
    positives: np.ndarray, negatives: np.ndarray, random: random.Random
) -> None:
    def rows(values: np.ndarray) -> np.ndarray:
        return np.array([[random.randrange(len(values)) for _ in values] for _ in range(3)])

    left, right = rows(positives), rows(negatives)
    found = Ranked(positives, negatives).aucs(left, right)
    ordered = np.sort(negatives)
    expected = [auc(positives[p], ordered[n]) for p, n in zip(left, right, strict=True)]
    assert found == pytest.approx(expected)


def test_large_groups_are_resampled_in_blocks_to_the_same_accuracy() -> None:
    random = np.random.default_rng(6)
    positives, negatives = random.normal(0.5, 1, 300), random.normal(0, 1, 30_000)
    low, high = bootstrap_auc(positives, negatives, np.random.default_rng(7))
    # The error of 300 positives alone: Hanley and McNeil give about 0.0156 at an AUC of 0.64.
    assert high - low == pytest.approx(2 * 1.96 * 0.0156, rel=0.15)


def test_the_interval_holds_the_value_and_shrinks_with_more_pairs() -> None:
    widths = []
    for size in (20, 2000):
        random = np.random.default_rng(1)
        positives, negatives = random.normal(0.5, 1, size), random.normal(0, 1, size)
        low, high = bootstrap_auc(positives, negatives, np.random.default_rng(2))
        assert low < auc(positives, negatives) < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 5


def test_the_interval_covers_the_true_auc_about_as_often_as_it_says() -> None:
    # For two normals one apart the AUC is Phi(1 / sqrt 2) = 0.7602.
    random, covered = np.random.default_rng(3), 0
    for _ in range(60):
        low, high = bootstrap_auc(random.normal(1, 1, 60), random.normal(0, 1, 60), random)
        covered += low <= 0.7602 <= high
    assert 51 <= covered <= 60


def test_groups_that_are_told_apart_without_error_still_have_an_interval_with_width() -> None:
    high, low = np.linspace(2, 3, 50), np.linspace(0, 1, 80)
    # No error in 50: the exact bound is .025 ** (1 / 50) = 0.9289.
    random = np.random.default_rng(0)
    assert bootstrap_auc(high, low, random) == pytest.approx((0.9289, 1.0), abs=1e-4)
    assert bootstrap_auc(low, high, random) == pytest.approx((0.0, 0.0711), abs=1e-4)


def test_the_interval_of_a_mean_is_near_the_textbook_one() -> None:
    values = np.random.default_rng(4).normal(10, 2, 400)
    low, high = bootstrap(
        lambda rows: float(values[rows].mean()), len(values), np.random.default_rng(5)
    )
    error = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - error, abs=0.05)
    assert high == pytest.approx(values.mean() + error, abs=0.05)


def test_percentiles_are_the_ends_of_the_middle_95_percent() -> None:
    assert percentiles(np.arange(1001.0)) == pytest.approx((25.0, 975.0))


def test_the_rate_at_1_percent_is_the_share_above_the_second_highest_of_100() -> None:
    others = np.arange(100.0)
    # One of 100 may be above the threshold, which is therefore 98.
    assert rate_at(np.array([97.0, 98.0, 98.5, 200.0]), others, 0.01) == 0.5
    assert rate_at(np.array([99.5]), np.arange(99.0) + 1.0, 0.01) == 1.0
    assert rate_at(np.array([99.0]), np.arange(99.0) + 1.0, 0.01) == 0.0


def test_the_interval_of_a_rate_holds_it_and_has_width_at_its_ends() -> None:
    random = np.random.default_rng(8)
    members, others = random.normal(2, 1, 200), random.normal(0, 1, 200)
    low, high = bootstrap_rate(members, others, 0.05, random)
    assert low < rate_at(members, others, 0.05) < high
    # No member of 200 is above: the exact bound is 1 - .025 ** (1 / 200) = 0.0183.
    assert bootstrap_rate(others - 99, others, 0.05, random) == pytest.approx((0, 0.0183), abs=1e-4)


def test_the_interval_of_a_share_is_near_the_textbook_one_and_open_at_0_and_1() -> None:
    hits = np.repeat([1.0, 0.0], [300, 100])
    low, high = bootstrap_share(hits, np.random.default_rng(9))
    error = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert (low, high) == pytest.approx((0.75 - error, 0.75 + error), abs=0.006)
    # All of 50: .025 ** (1 / 50) = 0.9289.
    assert bootstrap_share(np.ones(50), np.random.default_rng(9)) == pytest.approx(
        (0.9289, 1.0), abs=1e-4
    )
