import numpy as np
import pytest
from sklearn.metrics import f1_score

from engine.spec import Metric
from engine.tasks.accuracy import classification_metrics, f1_by_label

TRUTH = ("false", "true")
THREE = ("contradiction", "neutral", "entailment")


def measured(truth: list[int], guess: list[int], names: tuple[str, ...]) -> tuple[Metric, Metric]:
    accuracy, f1 = classification_metrics(np.array(truth), np.array(guess), names)
    return accuracy, f1


def test_accuracy_and_f1_are_the_ones_by_hand() -> None:
    accuracy, f1 = measured([1, 1, 1, 0, 0, 0, 0, 0], [1, 1, 0, 1, 0, 0, 0, 0], TRUTH)
    assert (accuracy.name, accuracy.n, f1.name, f1.n) == ("d_test", 8, "f1", 8)
    assert accuracy.value == pytest.approx(75)
    # Wilson 1927 for 6 of 8: 0.409 to 0.929.
    assert accuracy.interval == pytest.approx((40.93, 92.85), abs=0.01)
    # Precision 2/3, recall 2/3.
    assert f1.value == pytest.approx(200 / 3)
    assert f1.interval is not None
    assert f1.interval[0] < 200 / 3 < f1.interval[1]


def test_each_label_has_its_own_share_and_f1_by_hand() -> None:
    accuracy, f1 = measured([0, 0, 1, 1, 2, 2, 2, 2], [0, 0, 1, 0, 2, 2, 2, 1], THREE)
    shares = {name: (one["n"], one["value"]) for name, one in accuracy.details["per_label"].items()}
    assert shares == {"contradiction": (2, 100.0), "neutral": (2, 50.0), "entailment": (4, 75.0)}
    # Wilson 1927 for 1 of 2.
    interval = accuracy.details["per_label"]["neutral"]["interval"]
    assert interval == pytest.approx([9.45, 90.55], abs=0.01)
    # 2 TP / (2 TP + FP + FN): 4 / 5, 2 / 4 and 6 / 7.
    by_label = [one["value"] for one in f1.details["per_label"].values()]
    assert by_label == pytest.approx([80, 50, 600 / 7])
    assert f1.value == pytest.approx((80 + 50 + 600 / 7) / 3)
    for one in f1.details["per_label"].values():
        assert one["interval"][0] <= one["value"] <= one["interval"][1]


def test_a_label_without_pairs_has_no_figure() -> None:
    accuracy, f1 = measured([0, 2], [0, 1], THREE)
    for metric in (accuracy, f1):
        assert metric.details["per_label"]["neutral"] == {"n": 0, "value": None, "interval": None}


def test_a_class_that_neither_occurs_nor_is_guessed_is_not_averaged() -> None:
    _, f1 = measured([0, 0, 2, 2], [0, 0, 2, 0], THREE)
    # F1 of class 0 is 4/5, of class 2 it is 2/3.
    assert f1.value == pytest.approx(100 * (4 / 5 + 2 / 3) / 2)


def test_figures_without_a_pair_are_unavailable_and_not_zero() -> None:
    for metric in classification_metrics(None, None, TRUTH):
        assert metric.value is None
        assert metric.interval is None
        assert metric.unavailable


@pytest.mark.parametrize("classes", [2, 4])
def test_f1_of_many_tables_is_that_of_the_library_for_each(classes: int) -> None:
    rng = np.random.default_rng(0)
    truth, guess = np.divmod(np.arange(classes**2), classes)
    draws = rng.multinomial(30, rng.dirichlet(np.ones(classes**2)), 50)
    expected = [
        f1_score(truth, guess, sample_weight=draw, average=None, zero_division=0.0)
        for draw in draws
    ]
    np.testing.assert_allclose(f1_by_label(draws.reshape(-1, classes, classes)), expected)
