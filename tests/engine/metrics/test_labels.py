import numpy as np
import pytest

from engine.metrics.labels import MOST_LABELS, Figure, by_label, share, share_by_label


def test_each_label_is_measured_on_its_own_rows() -> None:
    labels = np.repeat([3, 1], [6, 5])
    found = by_label(labels, lambda label, rows: Figure(label + rows.mean(), (0.0, 9.0), None, 2))
    assert found == {
        "1": {"value": 9.0, "interval": [0.0, 9.0], "n": 5, "unavailable": None, "against": 2},
        "3": {"value": 5.5, "interval": [0.0, 9.0], "n": 6, "unavailable": None, "against": 2},
    }


def test_a_label_of_few_pairs_is_unavailable_and_never_measured() -> None:
    def refuse(_label: int, _rows: np.ndarray) -> Figure:
        raise AssertionError("a small group was measured")

    found = by_label(np.zeros(4, dtype=np.int64), refuse)
    reason = "needs at least 5 deleted pairs; 4 came"
    assert found["0"] == {"value": None, "interval": None, "n": 4, "unavailable": reason}


def test_pairs_without_a_label_are_no_group() -> None:
    labels = np.repeat([-1, 2], [9, 5])
    assert list(by_label(labels, lambda *_: Figure(1.0))) == ["2"]
    assert by_label(None, lambda *_: Figure(1.0)) == {}


def test_of_many_labels_the_most_frequent_are_reported() -> None:
    labels = np.concatenate([np.arange(50), np.repeat(np.arange(30, 50), 5)])
    found = by_label(labels, lambda *_: Figure(1.0))
    assert list(found) == [str(label) for label in range(30, 30 + MOST_LABELS)]


def test_a_share_is_in_points_and_has_an_interval_from_five_pairs_on() -> None:
    figure = share(np.array([1.0, 1, 1, 0, 1, 1, 1, 0]), seed=0)
    assert figure.value == 75.0
    assert figure.interval[0] < 75.0 < figure.interval[1]
    assert share(np.array([1.0, 0, 0, 0]), seed=0) == Figure(25.0)


def test_shares_by_label_are_those_of_its_rows() -> None:
    found = share_by_label(np.repeat([0, 1], 5), np.array([1.0] * 5 + [0, 0, 0, 0, 1]), seed=0)
    assert [entry["value"] for entry in found.values()] == [100.0, pytest.approx(20.0)]
