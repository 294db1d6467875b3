from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from engine.metrics import Evidence
from engine.metrics.base import ReferenceScores
from engine.metrics.ulira import log_ratio, ulira
from engine.spec import Metric

Make = Callable[..., Evidence]
NAMES = {"ulira_auc", "ulira_tpr_at_1pct_fpr", "ulira_tpr_at_0.1pct_fpr"}


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def _scores(
    members: int, others: int, *, models: int = 8, shift: float = 0.0, seed: int = 0
) -> ReferenceScores:
    """Return scores of pairs of very different difficulty, which having learned moves by ``shift``."""
    random = np.random.default_rng(seed)
    n = members + others
    difficulty = random.normal(0, 3, n)
    inside = random.random((models, n)).argsort(axis=0) < models // 2
    member = np.arange(n) < members
    noise = random.normal(0, 0.5, (models + 1, n))
    learned = np.vstack([member, inside])
    made = _sigmoid(difficulty + noise + shift * learned)
    return ReferenceScores(made[0], made[1:], inside, member)


def _attack(
    make_evidence: Make, *, moment: str = "after", **groups: ReferenceScores
) -> list[Metric]:
    return ulira(replace(make_evidence(), references=groups), None, moment)


def _named(found: list[Metric], name: str, subset: str = "forget") -> Metric:
    [metric] = [one for one in found if (one.name, one.subset) == (name, subset)]
    return metric


def test_the_ratio_of_a_small_example_is_derived_by_hand() -> None:
    # Pair 1: learned 3 and 5 (mean 4), not learned 0 and 2 (mean 1). Pair 2: learned 1 and 1, not
    # learned 1 and 3 (mean 2). Pooled: (1 + 1 + 0 + 0) / 2 = 1 inside, (1 + 1 + 1 + 1) / 2 = 2 outside.
    references = np.array([[3.0, 1], [5, 1], [0, 1], [2, 3]])
    inside = np.array([[True, True], [True, True], [False, False], [False, False]])
    # log N(4; 4, 1) - log N(4; 1, 2) = (log 2) / 2 + 9 / 4;  for 1: (log 2) / 2 + 1 / 4.
    found = log_ratio(np.array([4.0, 1.0]), references, inside, ~inside)
    assert found == pytest.approx([0.34657 + 2.25, 0.34657 + 0.25], abs=1e-5)


def test_each_pair_is_read_by_its_own_references_whichever_they_are() -> None:
    references = np.array([[3.0, 1], [5, 1], [0, 1], [2, 3]])
    inside = np.array([[True, True], [True, True], [False, False], [False, False]])
    order = [2, 0, 3, 1]
    target = np.array([4.0, 1.0])
    assert log_ratio(target, references[order], inside[order], ~inside[order]) == pytest.approx(
        log_ratio(target, references, inside, ~inside)
    )


def test_references_that_all_agree_give_a_finite_ratio() -> None:
    same = np.zeros((4, 2))
    inside = np.array([[True] * 2] * 2 + [[False] * 2] * 2)
    assert np.isfinite(log_ratio(np.array([0.0, 9.0]), same, inside, ~inside)).all()


def test_learned_pairs_are_found_although_pairs_differ_more_than_learning_does(
    make_evidence: Make,
) -> None:
    given = _scores(150, 150, shift=2.0)
    found = _named(_attack(make_evidence, forget=given), "ulira_auc")
    assert found.value > 0.9
    assert found.interval[0] > 0.85
    assert (found.n, found.details["never_seen"], found.details["reference_models"]) == (
        150,
        150,
        8,
    )
    assert found.details["on_references"]["value"] == pytest.approx(found.value, abs=0.05)
    # One threshold for all pairs is far weaker: this is why each has an attacker of its own.
    wins = given.target[given.member][:, None] > given.target[~given.member][None]
    assert wins.mean() < 0.75


def test_over_forgotten_pairs_are_found_as_well(make_evidence: Make) -> None:
    found = _attack(make_evidence, forget=_scores(150, 150, shift=-2.0))
    assert _named(found, "ulira_auc").value > 0.9


def test_pairs_that_left_no_trace_cannot_be_told_from_those_never_there(
    make_evidence: Make,
) -> None:
    found = _named(_attack(make_evidence, forget=_scores(150, 150, shift=0.0)), "ulira_auc")
    assert found.interval[0] < 0.5 < found.interval[1]
    assert found.direction == "near_half"


@pytest.mark.parametrize("models", [4, 5, 8])
def test_on_references_the_number_of_models_gives_no_pair_away(
    make_evidence: Make, models: int
) -> None:
    found = _attack(make_evidence, forget=_scores(500, 500, models=models, shift=0.0))
    on_references = _named(found, "ulira_auc").details["on_references"]
    assert on_references["value"] == pytest.approx(0.5, abs=0.03)
    assert on_references["interval"][0] < 0.5 < on_references["interval"][1]


def test_rates_on_references_need_fewer_pairs_since_each_stands_in_half_of_the_models(
    make_evidence: Make,
) -> None:
    found = _attack(make_evidence, forget=_scores(125, 125, models=8, shift=4.0))
    rate = _named(found, "ulira_tpr_at_0.1pct_fpr")
    assert rate.value is None
    pooled = rate.details["on_references"]
    assert (pooled["n"], pooled["never_seen"], pooled["unavailable"]) == (1000, 1000, None)
    assert 0.5 < pooled["interval"][0] <= pooled["value"] <= pooled["interval"][1] <= 1
    fewer = _attack(make_evidence, forget=_scores(124, 125, models=8, shift=4.0))
    pooled = _named(fewer, "ulira_tpr_at_0.1pct_fpr").details["on_references"]
    assert pooled["unavailable"] == "needs at least 1000 never seen pairs; 996 came"
    assert _named(fewer, "ulira_tpr_at_1pct_fpr").details["on_references"]["value"] > 0.5


def test_pooled_rates_of_pairs_that_left_no_trace_are_no_better_than_guessing(
    make_evidence: Make,
) -> None:
    found = _attack(make_evidence, forget=_scores(500, 500, shift=0.0))
    pooled = _named(found, "ulira_tpr_at_1pct_fpr").details["on_references"]
    assert pooled["value"] == pytest.approx(0.01, abs=0.01)


def test_deleted_pairs_of_each_label_are_attacked_on_their_own(make_evidence: Make) -> None:
    moved = _scores(150, 150, shift=4.0)
    gone = moved.references[(~moved.inside).argmax(axis=0), np.arange(300)]
    mixed = replace(moved, target=np.where(np.arange(300) < 100, gone, moved.target))
    labels = np.repeat([0, 1, 0, 1], [100, 50, 75, 75])
    mixed, moved = replace(mixed, labels=labels), replace(moved, labels=labels)
    found = _attack(make_evidence, forget=mixed, retained=moved)
    by = _named(found, "ulira_auc").details["per_label"]
    assert (by["0"]["n"], by["1"]["n"]) == (100, 50)
    assert by["1"]["value"] > 0.9
    assert by["0"]["value"] == pytest.approx(0.5, abs=0.15)
    assert (by["0"]["against"], by["1"]["against"]) == (75, 75)
    rates = _named(found, "ulira_tpr_at_1pct_fpr").details["per_label"]
    assert rates["1"]["unavailable"] == "needs at least 100 never seen pairs; 75 came"
    kept = _named(found, "ulira_auc", "retained").details["per_label"]
    assert kept["0"]["value"] > 0.9


def test_labels_are_told_apart_over_references_as_well(make_evidence: Make) -> None:
    """Pairs of label 1 leave a trace in every model that learned them, those of label 0 leave none."""
    some, none = _scores(150, 150, shift=4.0), _scores(150, 150, shift=0.0)
    one = np.arange(300) % 3 == 0
    mixed = replace(
        none,
        target=np.where(one, some.target, none.target),
        references=np.where(one, some.references, none.references),
        labels=one.astype(np.int64),
    )
    found = _attack(make_evidence, forget=mixed)
    for name, chance in (("ulira_auc", 0.5), ("ulira_tpr_at_1pct_fpr", 0.01)):
        by = _named(found, name).details["on_references"]["per_label"]
        assert (by["0"]["n"], by["1"]["n"]) == (200, 100)
        assert by["0"]["against"] == 800
        assert by["0"]["value"] == pytest.approx(chance, abs=0.06)
        assert by["1"]["value"] > 0.7
        assert by["1"]["interval"][0] <= by["1"]["value"] <= by["1"]["interval"][1]


def test_rates_need_a_hundred_and_a_thousand_pairs_never_seen(make_evidence: Make) -> None:
    few = _attack(make_evidence, forget=_scores(50, 99, shift=2.0))
    reason = _named(few, "ulira_tpr_at_1pct_fpr").unavailable
    assert reason == "needs at least 100 never seen pairs; 99 came"
    enough = _attack(make_evidence, forget=_scores(50, 999, shift=2.0))
    assert 0.1 < _named(enough, "ulira_tpr_at_1pct_fpr").value <= 1
    assert "1000 never seen pairs; 999" in _named(enough, "ulira_tpr_at_0.1pct_fpr").unavailable
    many = _named(
        _attack(make_evidence, forget=_scores(50, 1000, shift=4.0)), "ulira_tpr_at_0.1pct_fpr"
    )
    assert many.interval[0] <= many.value <= many.interval[1]
    assert many.direction == "lower"


def test_deleted_and_retained_pairs_are_reported_apart(make_evidence: Make) -> None:
    found = _attack(
        make_evidence, forget=_scores(60, 60, shift=0.0), retained=_scores(80, 80, shift=3.0)
    )
    assert {(one.name, one.subset) for one in found} == {
        (name, subset) for name in NAMES for subset in ("forget", "retained")
    }
    assert _named(found, "ulira_auc", "retained").n == 80
    assert _named(found, "ulira_auc", "retained").value > 0.9
    assert _named(found, "ulira_auc", "forget").value < 0.7


def test_the_attack_is_reported_once_and_not_for_every_subset(make_evidence: Make) -> None:
    evidence = replace(make_evidence(), subset="request:a", references={"forget": _scores(9, 9)})
    assert ulira(evidence, None, "after") == []


def test_without_reference_models_it_is_unavailable_once_with_what_to_do(
    make_evidence: Make,
) -> None:
    found = ulira(make_evidence(), None, "after")
    assert {one.name for one in found} == NAMES
    assert all("reference_models" in one.unavailable for one in found)
    assert ulira(make_evidence(), None, "before") == []


def test_scores_that_are_not_finite_make_it_unavailable(make_evidence: Make) -> None:
    given = _scores(50, 50)
    given.references[0, 0] = np.nan
    found = _attack(make_evidence, forget=given)
    assert all("1 scores or outputs" in one.unavailable for one in found)


def test_few_pairs_give_a_value_without_an_interval(make_evidence: Make) -> None:
    found = _named(_attack(make_evidence, forget=_scores(3, 50, shift=3.0)), "ulira_auc")
    assert found.value is not None
    assert found.interval is None
