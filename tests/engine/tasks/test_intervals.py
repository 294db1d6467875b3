import numpy as np
import pytest

from engine.tasks.intervals import bootstrap_mean, wilson


@pytest.mark.parametrize(
    ("successes", "n", "expected"),
    # By the formula on paper: with no success the upper end is z^2 / (n + z^2).
    [(0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0)), (5, 10, (0.2366, 0.7634))],
)
def test_wilson_intervals_are_the_known_ones(
    successes: int, n: int, expected: tuple[float, float]
) -> None:
    assert wilson(successes, n) == pytest.approx(expected, abs=1e-4)


def test_a_bootstrap_interval_has_the_width_of_the_standard_error() -> None:
    values = np.tile([0.0, 1.0], 200)
    low, high = bootstrap_mean([values])
    # Standard error 0.5 / 20 = 0.025, so that the ends are near 0.451 and 0.549.
    assert low == pytest.approx(0.451, abs=0.01)
    assert high == pytest.approx(0.549, abs=0.01)


def test_groups_count_alike_whatever_their_size() -> None:
    low, high = bootstrap_mean([np.ones(3), np.zeros(300)])
    assert low == high == pytest.approx(0.5)
