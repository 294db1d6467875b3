"""Which metrics a report shows, by label too, and how scores are spread."""

from typing import Any

import pytest

from app.audit.findings import Concern, _pairs, findings, score_spreads
from app.audit.schemas import MetricOut

SPREAD = {
    "low": 0.0,
    "high": 1.0,
    "deleted": [0, 0, 0, 9],
    "retained": [0, 1, 2, 3],
    "unseen": [0, 0, 0, 0],
}


def metric(name: str, moment: str = "after", subset: str = "forget", **more: Any) -> MetricOut:
    given = {"value": 40.0, "interval": (35.0, 45.0), "n": 9, "direction": "lower"}
    return MetricOut.model_validate(
        {"name": name, "moment": moment, "subset": subset, **given, **more}
    )


def missing(name: str, moment: str = "after") -> MetricOut:
    return metric(name, moment, value=None, interval=None, unavailable="none were asked for")


def test_findings_stand_in_the_order_of_subsets_and_of_meanings() -> None:
    given = [
        metric("ulira_auc", subset="retained"),
        metric("unseen_auc"),
        metric("d_f"),
        metric("d_test", subset="test"),
        metric("d_test", subset="val"),
        metric("utility_excess", subset="val"),
    ]
    found = [(one.name, one.subset) for one in findings(given, Concern("req_1"))]
    assert found == [
        ("d_test", "test"),
        ("utility_excess", "val"),
        ("d_f", "forget"),
        ("unseen_auc", "forget"),
        ("ulira_auc", "retained"),
    ]
    assert findings(given, Concern("req_1"))[-1].pairs == "on pairs that were kept"


def test_what_was_not_measured_is_said_once_and_not_for_every_rate() -> None:
    given = [metric("d_f")]
    given += [missing(f"ulira_{name}") for name in ("auc", "tpr_at_1pct_fpr", "tpr_at_0.1pct_fpr")]
    given += [missing("forget_accuracy", moment) for moment in ("before", "after")]
    found = {one.name: one for one in findings(given, Concern("req_1"))}
    assert set(found) == {"d_f", "ulira_auc"}
    assert found["ulira_auc"].after.text == "not available: none were asked for"


def test_a_rate_that_was_measured_at_one_moment_is_shown() -> None:
    given = [
        metric("d_f"),
        missing("ulira_tpr_at_1pct_fpr", "before"),
        metric("ulira_tpr_at_1pct_fpr"),
    ]
    assert [one.name for one in findings(given, Concern("req_1"))] == [
        "d_f",
        "ulira_tpr_at_1pct_fpr",
    ]


def test_a_rate_that_reference_models_could_not_give_is_shown_with_the_reason() -> None:
    made = {"details": {"reference_models": 4}, "value": None, "interval": None}
    reason = "needs at least 1000 never seen pairs; 20 came"
    given = [metric("d_f"), metric("ulira_tpr_at_0.1pct_fpr", **made, unavailable=reason)]
    [_, rate] = findings(given, Concern("req_1"))
    assert rate.after is not None
    assert rate.after.text == f"not available: {reason}"


def test_the_attack_on_a_shared_job_is_shown_on_all_pairs_of_the_job() -> None:
    given = [
        metric("d_f", subset="request:req_1"),
        metric("d_f", subset="forget"),
        metric("ulira_auc", subset="forget"),
    ]
    found = [(one.name, one.subset) for one in findings(given, Concern("req_1"))]
    assert found == [("d_f", "request:req_1"), ("ulira_auc", "forget")]
    others = findings(given, Concern("req_1", made_for=False))
    assert [one.name for one in others] == ["d_f"]


def labelled(*labels: str, value: float | None = 12.0) -> dict[str, Any]:
    entry = {"value": value, "interval": [10.0, 14.0] if value else None, "n": 8}
    entry["unavailable"] = None if value else "needs at least 5 retained pairs; 1 came"
    return {"per_label": dict.fromkeys(labels, entry)}


def test_the_figures_of_each_label_are_shown_before_and_after() -> None:
    given = [
        metric("d_f", "before", details=labelled("0", "1")),
        metric("d_f", "after", details=labelled("0", "1", value=None)),
    ]
    [finding] = findings(given, Concern("req_1"))
    assert [one.label for one in finding.per_label] == ["0", "1"]
    assert finding.per_label[0].before.text == "12.0 (10.0 to 14.0)"
    assert finding.per_label[0].after.text == (
        "not available: needs at least 5 retained pairs; 1 came"
    )


def test_a_single_label_is_not_told_twice() -> None:
    assert findings([metric("d_f", details=labelled("0"))], Concern("req_1"))[0].per_label == []


def test_figures_by_label_of_older_audits_can_be_read() -> None:
    older = {
        "per_label": {"0": {"value": 12.0, "n": 8, "n_retained": 9}, "1": {"value": None, "n": 1}}
    }
    [finding] = findings([metric("d_f", details=older)], Concern("req_1"))
    first, second = finding.per_label
    assert first.after.text == "12.0 (no interval: too few pairs)"
    assert second.after.text == "not available: too few pairs"


def test_the_spread_of_scores_is_that_of_the_requests_own_pairs() -> None:
    given = [
        metric("d_f", moment, subset, details={"histograms": {**SPREAD, "deleted": [n, 0, 0, 0]}})
        for n, subset in ((1, "forget"), (2, "request:req_1"), (3, "request:req_2"))
        for moment in ("before", "after")
    ]
    found = score_spreads(given, Concern("req_1"))
    assert [(one.moment, one.deleted) for one in found] == [
        ("before", [2, 0, 0, 0]),
        ("after", [2, 0, 0, 0]),
    ]
    assert score_spreads([metric("d_f")], Concern("req_1")) == []


def test_the_spread_is_told_by_the_score_in_the_middle() -> None:
    # 3 of 6 kept pairs are in the first three of four bins: the third one, .50 to .75.
    [spread] = score_spreads([metric("d_f", details={"histograms": SPREAD})], Concern("req_1"))
    assert spread.reading == "Half of the pairs score above about: deleted 0.88, kept 0.62."


@pytest.mark.parametrize(("aim", "expected"), [("decouple", False), ("calibrated", True)])
def test_findings_are_read_by_the_aim(aim: str, expected: bool) -> None:
    [finding] = findings([metric("d_f")], Concern("req_1"), aim)
    assert ("judged against never seen pairs" in finding.reading) is expected


def shown(given: list[MetricOut], concern: Concern) -> list[tuple[str, str]]:
    return [(one.subset, one.pairs) for one in findings(given, concern) if one.name == "d_f"]


def test_pairs_forgotten_before_are_said_to_be_among_those_of_the_request() -> None:
    given = [
        metric("d_f", subset="request:req_1", n=4),
        metric("d_f", subset="forget", n=1),
        metric("d_f", subset="forgotten", n=9),
    ]
    assert shown(given, Concern("req_1", here=1, before=3)) == [
        (
            "request:req_1",
            "on the 4 pairs of this request, 3 of them forgotten before this version",
        ),
        (
            "forget",
            "on 1 of the 4 pairs of this request: those that this version was made to forget",
        ),
        (
            "forgotten",
            "on all pairs that the version has forgotten, those of this request among them",
        ),
    ]


def test_an_older_audit_of_the_new_pairs_alone_is_not_said_to_be_of_all() -> None:
    given = [metric("d_f", subset="forget", n=1), metric("d_f", subset="forgotten", n=4)]
    [(_, said), (other, whole)] = shown(given, Concern("req_1", here=1, before=3))
    assert said.startswith("on 1 of the 4 pairs of this request")
    assert (other, whole.endswith("those of this request among them")) == ("forgotten", True)
    shared = [metric("d_f", subset="request:req_1", n=1), metric("d_f", subset="request:req_2")]
    [(_, said)] = shown(shared, Concern("req_1", here=1, before=3))
    assert said.startswith("on 1 of the 4 pairs of this request")


def test_a_version_that_was_there_before_names_the_requests_pairs_among_its_own() -> None:
    given = [metric("d_f", subset="forget", n=1), metric("d_f", subset="forgotten", n=4)]
    concern = Concern("req_2", made_for=False, here=1, before=1, whose="request req_2")
    assert shown(given, concern) == [
        (
            "forgotten",
            "on all pairs that the version has forgotten, those of request req_2 among them",
        )
    ]


def test_pairs_that_were_forgotten_by_then_are_not_compared_with_how_they_were_before() -> None:
    # Low before, since an earlier version had forgotten most of them, and no lower after.
    figures = {"value": 12.0, "interval": (9.0, 15.0), "n": 4}
    given = [metric("d_f", moment, "request:req_1", **figures) for moment in ("before", "after")]
    [mixed] = findings(given, Concern("req_1", here=1, before=3))
    assert mixed.reading == "Deleted pairs now look unrelated to the model."
    assert mixed.before is not None
    [fresh] = findings(given, Concern("req_1", here=4))
    assert fresh.reading.endswith("no forgetting is shown.")


def test_as_many_test_pairs_as_were_forgotten_are_no_deleted_pairs() -> None:
    concern = Concern("r", here=100, before=3)
    assert "those that this version was made to forget" in _pairs("forget", 100, concern)
    assert _pairs("test", 100, concern) == _pairs("test", 101, concern)
