import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.metrics.scores import BINS, COSINE, PROBABILITY, histograms, logit_scaled, span


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.0, 0.4], PROBABILITY),
        ([0.2, 1.0], PROBABILITY),
        ([-0.1, 0.9], COSINE),
        ([-3.0, 0.5], (-3.0, 0.5)),
        ([], PROBABILITY),
    ],
)
def test_the_scale_is_that_of_probabilities_of_cosines_or_the_scores_own(
    scores: list[float], expected: tuple[float, float]
) -> None:
    assert span(np.array(scores)) == expected


def test_the_scale_holds_every_group() -> None:
    assert span(np.array([0.5]), np.array([]), np.array([-0.5])) == COSINE


def test_scaled_probabilities_are_log_odds() -> None:
    # log(3 / 1) = 1.0986; log(1 / 9) = -2.1972.
    found = logit_scaled(np.array([0.5, 0.75, 0.1]), PROBABILITY)
    assert found == pytest.approx([0.0, 1.0986, -2.1972], abs=1e-4)


def test_scaled_cosines_are_twice_fishers_z() -> None:
    cosines = np.array([-0.5, 0.0, 0.8])
    assert logit_scaled(cosines, COSINE) == pytest.approx(2 * np.arctanh(cosines))


def test_sure_scores_stay_finite_and_other_scales_as_they_are() -> None:
    found = logit_scaled(np.array([0.0, 1.0]), PROBABILITY)
    assert found == pytest.approx([-16.118, 16.118], abs=1e-3)  # log(1e-7 / (1 - 1e-7))
    own = np.array([-3.0, 5.0])
    assert logit_scaled(own, (-3.0, 5.0)) is own


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=50), st.lists(st.floats(0, 1), max_size=50))
def test_histograms_count_every_score_once(one: list[float], other: list[float]) -> None:
    found = histograms(one=np.array(one), other=np.array(other))
    assert len(found["one"]) == len(found["other"]) == BINS
    assert (sum(found["one"]), sum(found["other"])) == (len(one), len(other))
