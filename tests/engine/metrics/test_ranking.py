import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from engine.metrics.ranking import Ranked, auc, bootstrap, bootstrap_auc, percentiles

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
def test_the_auc_of_chosen_rows_is_the_auc_of_those_values(
    positives: np.ndarray, negatives: np.ndarray, random: "np.random.Generator"
) -> None:
    rows = np.array([random.randrange(len(positives)) for _ in positives])
    chosen = Ranked(positives, negatives).auc(rows)
    assert chosen == pytest.approx(auc(positives[rows], negatives))


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
