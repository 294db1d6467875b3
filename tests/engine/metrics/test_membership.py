from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine.errors import InvalidSpec
from engine.metrics import Evidence, Observed
from engine.metrics.membership import features, fit_attack, membership, mi_ratio
from engine.spec import Metric

Make = Callable[..., Evidence]
Observe = Callable[..., Observed]


def _evidence(
    make_evidence: Make,
    sure_outputs: Observe,
    *,
    deleted: float = 4.0,
    retained: float = 4.0,
    n: int = 150,
    gone: int = 40,
) -> Evidence:
    return make_evidence(
        deleted=sure_outputs(gone, deleted, 1),
        retained=sure_outputs(n, retained, 2),
        validation=sure_outputs(n, 0.0, 3),
    )


def _by_name(metrics: list[Metric]) -> dict[str, Metric]:
    return {metric.name: metric for metric in metrics}


def test_features_are_the_entropy_and_the_probabilities_from_high_to_low() -> None:
    given_outputs = np.array([[0.25, 0.75, 0.0], [0.0, 0.0, 1.0]])
    # -(1/4) ln(1/4) - (3/4) ln(3/4) = 0.5623351; a sure answer has no entropy.
    expected = [[0.5623351, 0.75, 0.25, 0.0], [0.0, 1.0, 0.0, 0.0]]
    assert features(given_outputs) == pytest.approx(np.array(expected), abs=1e-7)


@given(arrays(np.float64, (5, 4), elements=st.floats(0.01, 1)))
def test_features_do_not_depend_on_the_order_of_classes(raw: np.ndarray) -> None:
    outputs = raw / raw.sum(axis=1, keepdims=True)
    assert features(outputs[:, ::-1]) == pytest.approx(features(outputs))


def test_of_many_candidates_only_the_32_highest_probabilities_are_features() -> None:
    outputs = np.arange(1.0, 101.0)[None, :] / 5050
    found = features(outputs)
    assert found.shape == (1, 33)
    assert found[0, 1:] == pytest.approx(np.arange(100.0, 68.0, -1) / 5050)


def test_features_ignore_which_class_is_first_but_not_how_sure_the_model_is() -> None:
    sure, unsure = features(np.array([[0.97, 0.01, 0.02], [0.4, 0.3, 0.3]]))
    assert sure[0] < unsure[0]
    assert sure[1] > unsure[1]


def test_the_ratio_of_a_small_example_is_derived_by_hand() -> None:
    assert mi_ratio(np.array([0.9, 0.7]), np.array([0.5, 0.3])) == pytest.approx(2.0)


def test_an_attack_on_a_model_that_betrays_its_members_finds_them(
    make_evidence: Make, sure_outputs: Observe
) -> None:
    evidence = _evidence(make_evidence, sure_outputs, retained=8.0)
    found = _by_name(membership(evidence, None, "before"))
    auc, rate = found["mi_attack_auc"], found["mi_tpr_at_1pct_fpr"]
    assert set(found) == {"mi_attack_auc", "mi_tpr_at_1pct_fpr"}
    assert auc.value > 0.95
    assert 0.95 < auc.interval[0] < auc.value <= auc.interval[1]
    assert (auc.n, auc.details["members"]) == (300, 150)
    assert rate.value > 0.5
    assert rate.interval[0] <= rate.value <= rate.interval[1]


def test_an_attack_on_a_model_that_betrays_nothing_is_a_coin_toss(
    make_evidence: Make, sure_outputs: Observe
) -> None:
    evidence = _evidence(make_evidence, sure_outputs, retained=0.0)
    auc = _by_name(membership(evidence, None, "before"))["mi_attack_auc"]
    assert 0.35 < auc.value < 0.65


def test_the_ratio_is_above_1_when_deleted_pairs_stop_looking_like_members(
    make_evidence: Make, sure_outputs: Observe
) -> None:
    before = _evidence(make_evidence, sure_outputs)
    after = _evidence(make_evidence, sure_outputs, deleted=0.0)
    ratio = _by_name(membership(after, before, "after"))["mi_ratio"]
    assert ratio.value > 3
    assert 1 < ratio.interval[0] < ratio.value < ratio.interval[1]
    assert (ratio.n, ratio.direction) == (40, "higher")
    quotient = ratio.details["mean_before"] / ratio.details["mean_after"]
    assert ratio.value == pytest.approx(quotient)


def test_means_on_deleted_pairs_of_two_models_make_their_ratio(
    make_evidence: Make, sure_outputs: Observe
) -> None:
    before = _evidence(make_evidence, sure_outputs)
    after = replace(_evidence(make_evidence, sure_outputs, deleted=0.0), subset="request:a")
    means = [
        _by_name(membership(one, None, "before"))["mi_attack_auc"].details["mean_on_deleted"]
        for one in (before, after)
    ]
    ratio = _by_name(membership(after, before, "after"))["mi_ratio"]
    assert means[0] / means[1] == pytest.approx(ratio.value)


def test_the_ratio_is_1_when_nothing_changed(make_evidence: Make, sure_outputs: Observe) -> None:
    evidence = _evidence(make_evidence, sure_outputs)
    ratio = _by_name(membership(evidence, evidence, "after"))["mi_ratio"]
    assert ratio.value == 1.0
    assert ratio.interval == (1.0, 1.0)


def test_the_attacker_is_fitted_anew_on_each_model(
    make_evidence: Make, sure_outputs: Observe
) -> None:
    # The new model is unsure of everything; an attacker fitted on the old one would say that
    # nothing is a member, a new one knows that members look like this now.
    before = _evidence(make_evidence, sure_outputs)
    after = _evidence(make_evidence, sure_outputs, deleted=-4.0, retained=-4.0)
    details = _by_name(membership(after, before, "after"))["mi_ratio"].details
    stale = fit_attack(before).probabilities(after.deleted).mean()
    fresh = fit_attack(after).probabilities(after.deleted).mean()
    assert details["mean_after"] == pytest.approx(fresh)
    assert details["mean_after"] != pytest.approx(stale, abs=0.01)


def test_probabilities_of_membership_lie_between_0_and_1(
    make_evidence: Make, sure_outputs: Observe
) -> None:
    evidence = _evidence(make_evidence, sure_outputs)
    given_probabilities = fit_attack(evidence).probabilities(evidence.deleted)
    assert given_probabilities.shape == (40,)
    assert ((given_probabilities >= 0) & (given_probabilities <= 1)).all()


def test_members_and_others_are_as_many_and_at_most_500(
    make_evidence: Make, sure_outputs: Observe
) -> None:
    evidence = make_evidence(
        retained=sure_outputs(900, 1.0, 2), validation=sure_outputs(600, 0.0, 3)
    )
    attack = fit_attack(evidence)
    assert len(attack.members) == len(attack.others) == 500


def test_the_same_evidence_gives_the_same_metrics(
    make_evidence: Make, sure_outputs: Observe
) -> None:
    before = _evidence(make_evidence, sure_outputs)
    after = _evidence(make_evidence, sure_outputs, deleted=1.0)
    assert membership(after, before, "after") == membership(after, before, "after")


def test_too_few_pairs_make_every_metric_unavailable_with_the_needed_number(
    make_evidence: Make, sure_outputs: Observe
) -> None:
    evidence = _evidence(make_evidence, sure_outputs, n=19)
    found = membership(evidence, evidence, "after")
    assert [metric.name for metric in found] == ["mi_ratio", "mi_attack_auc", "mi_tpr_at_1pct_fpr"]
    for metric in found:
        assert metric.value is None
        assert metric.unavailable == "needs at least 20 retained pairs; 19 came"


def test_the_rate_alone_is_unavailable_below_100_pairs(
    make_evidence: Make, sure_outputs: Observe
) -> None:
    found = _by_name(membership(_evidence(make_evidence, sure_outputs, n=99), None, "before"))
    assert found["mi_attack_auc"].value is not None
    assert found["mi_tpr_at_1pct_fpr"].value is None
    assert "at least 100" in found["mi_tpr_at_1pct_fpr"].unavailable


def test_the_ratio_needs_the_model_before(make_evidence: Make, sure_outputs: Observe) -> None:
    found = _by_name(membership(_evidence(make_evidence, sure_outputs), None, "after"))
    assert "model before" in found["mi_ratio"].unavailable
    assert found["mi_attack_auc"].value is not None


def test_the_ratio_refuses_other_pairs_before_than_after(
    make_evidence: Make, sure_outputs: Observe
) -> None:
    before = _evidence(make_evidence, sure_outputs, gone=39)
    with pytest.raises(InvalidSpec, match=r"39 deleted pairs.*after on 40"):
        membership(_evidence(make_evidence, sure_outputs), before, "after")


def test_outputs_that_are_not_finite_make_the_metric_unavailable(
    make_evidence: Make, sure_outputs: Observe
) -> None:
    evidence = _evidence(make_evidence, sure_outputs)
    evidence.validation.outputs[3, 1] = np.nan
    for metric in membership(evidence, None, "before"):
        assert "1 scores or outputs" in metric.unavailable


def test_the_attack_is_fitted_once_for_all_subsets_of_a_model(
    make_evidence: Make, sure_outputs: Observe
) -> None:
    evidence = _evidence(make_evidence, sure_outputs)
    first = membership(evidence, None, "before")
    other = replace(evidence, subset="forgotten", deleted=sure_outputs(30, 0.0, 9))
    attack = evidence.kept["mi_attack"]
    assert [metric.value for metric in membership(other, None, "before")] == [
        metric.value for metric in first
    ]
    assert other.kept["mi_attack"] is attack


def test_the_ratio_of_each_label_comes_from_the_same_two_attacks(
    make_evidence: Make, sure_outputs: Observe
) -> None:
    labels = np.repeat([0, 1, 2], [20, 16, 4])
    before = _evidence(make_evidence, sure_outputs)
    after = _evidence(make_evidence, sure_outputs, deleted=0.0)
    after = replace(after, deleted=replace(after.deleted, labels=labels))
    details = _by_name(membership(after, before, "after"))["mi_ratio"].details
    first, second, third = (details["per_label"][label] for label in "012")
    old = fit_attack(before).probabilities(before.deleted)
    new = fit_attack(after).probabilities(after.deleted)
    assert first["value"] == pytest.approx(old[:20].mean() / new[:20].mean())
    assert second["value"] == pytest.approx(old[20:36].mean() / new[20:36].mean())
    assert first["interval"][0] < first["value"] < first["interval"][1]
    assert (third["value"], third["n"]) == (None, 4)
    assert third["unavailable"] == "needs at least 5 deleted pairs; 4 came"


def test_the_attack_is_measured_on_the_members_of_each_label_against_others_of_it(
    make_evidence: Make, sure_outputs: Observe
) -> None:
    # Members of label 0 are surer than others, those of label 1 are not; of label 2 there are few.
    labels = np.repeat([0, 1, 2], [120, 120, 4])
    sure, plain = sure_outputs(244, 8.0, 2), sure_outputs(244, 0.0, 4)
    outputs = np.where((labels == 0)[:, None], sure.outputs, plain.outputs)
    evidence = make_evidence(
        deleted=sure_outputs(40, 4.0, 1),
        retained=replace(plain, outputs=outputs, labels=labels),
        validation=replace(sure_outputs(244, 0.0, 3), labels=np.roll(labels, 50)),
    )
    found = _by_name(membership(evidence, None, "before"))
    auc = found["mi_attack_auc"].details["per_label"]
    rate = found["mi_tpr_at_1pct_fpr"].details["per_label"]
    assert auc["0"]["value"] > 0.9
    assert 0.35 < auc["1"]["value"] < 0.65
    assert auc["0"]["interval"][0] < auc["0"]["value"] <= auc["0"]["interval"][1]
    assert (auc["0"]["n"], auc["0"]["against"], auc["2"]["n"]) == (120, 120, 4)
    assert auc["2"]["unavailable"] == "needs at least 5 retained pairs; 4 came"
    assert rate["0"]["value"] > 0.5 > rate["1"]["value"]
    assert rate["0"]["interval"][0] <= rate["0"]["value"] <= rate["0"]["interval"][1]


def test_a_label_with_few_others_has_an_auc_and_no_rate(
    make_evidence: Make, sure_outputs: Observe
) -> None:
    labels = np.repeat([0, 1], [110, 40])
    evidence = make_evidence(
        deleted=sure_outputs(40, 4.0, 1),
        retained=replace(sure_outputs(150, 4.0, 2), labels=labels),
        validation=replace(sure_outputs(150, 0.0, 3), labels=labels),
    )
    found = _by_name(membership(evidence, None, "before"))
    rate = found["mi_tpr_at_1pct_fpr"].details["per_label"]["1"]
    assert rate["unavailable"] == "needs at least 100 validation pairs; 40 came"
    assert found["mi_attack_auc"].details["per_label"]["1"]["value"] > 0.7


def test_without_labels_the_attack_has_no_figures_by_label(
    make_evidence: Make, sure_outputs: Observe
) -> None:
    found = _by_name(membership(_evidence(make_evidence, sure_outputs), None, "before"))
    assert all("per_label" not in metric.details for metric in found.values())
