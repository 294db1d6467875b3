"""Readings never claim more than the interval does."""

import pytest

from app.audit.readings import METRICS, measured, reading_of
from app.audit.schemas import Measured, MetricOut


def shown(
    name: str, value: float | None, interval: tuple[float, float] | None, moment: str = "after"
) -> Measured:
    reason = "needs at least 1 deleted pairs; 0 came" if value is None else None
    return measured(
        MetricOut(
            name=name,
            moment=moment,
            subset="forget",
            value=value,
            interval=interval,
            n=9,
            direction="lower",
            unavailable=reason,
        )
    )


@pytest.mark.parametrize(
    ("interval", "sentence"),
    [
        ((8.0, 15.0), "now look unrelated"),
        ((20.0, 30.0), "now look unrelated"),
        ((25.0, 31.0), "less related than kept ones"),
        ((40.0, 49.9), "less related than kept ones"),
        ((45.0, 55.0), "no forgetting is shown"),
        ((49.9, 50.1), "no forgetting is shown"),
        ((50.1, 60.0), "they are not forgotten"),
    ],
)
def test_d_f_is_read_against_fifty(interval: tuple[float, float], sentence: str) -> None:
    assert sentence in reading_of("d_f", None, shown("d_f", sum(interval) / 2, interval))


def test_d_f_says_that_pairs_looked_like_kept_ones_only_where_they_did() -> None:
    after = shown("d_f", 11.0, (8.0, 15.0))
    alike = shown("d_f", 50.0, (45.0, 55.0), "before")
    lower = shown("d_f", 40.0, (35.0, 45.0), "before")
    assert reading_of("d_f", alike, after).startswith("Before, they looked like kept pairs.")
    assert "Before" not in reading_of("d_f", lower, after)


@pytest.mark.parametrize(
    ("name", "interval", "sentence"),
    [
        ("unseen_auc", (0.43, 0.55), "cannot be told from never seen ones"),
        ("unseen_auc", (0.6, 0.7), "a trace remains"),
        ("unseen_auc", (0.2, 0.3), "could mark them"),
        ("mi_ratio", (1.1, 1.3), "less exposed"),
        ("mi_ratio", (0.9, 1.3), "No change"),
        ("mi_ratio", (0.7, 0.9), "more exposed"),
        ("mi_attack_auc", (0.45, 0.55), "says little"),
        ("mi_attack_auc", (0.6, 0.7), "better than guessing"),
        ("mi_tpr_at_1pct_fpr", (0.02, 0.1), "can be named with few mistakes"),
        ("mi_tpr_at_1pct_fpr", (0.0, 0.03), "no better than guessing"),
        ("ulira_auc", (0.55, 0.7), "tells these pairs from pairs that were never there"),
        ("ulira_auc", (0.45, 0.6), "does not tell"),
        ("ulira_tpr_at_1pct_fpr", (0.02, 0.1), "can be named"),
        ("ulira_tpr_at_0.1pct_fpr", (0.002, 0.1), "can be named"),
        ("ulira_tpr_at_0.1pct_fpr", (0.0, 0.02), "no better than guessing"),
    ],
)
def test_other_metrics_are_read_against_their_own_middle(
    name: str, interval: tuple[float, float], sentence: str
) -> None:
    assert sentence in reading_of(name, None, shown(name, sum(interval) / 2, interval))


COUNTED = [name for name, explained in METRICS.items() if explained.counted]


@pytest.mark.parametrize("name", [name for name in METRICS if name not in COUNTED])
def test_without_an_interval_a_figure_is_an_indication_only(name: str) -> None:
    before, after = shown(name, 0.2, None, "before"), shown(name, 0.3, None)
    assert "an indication only" in reading_of(name, before, after)


@pytest.mark.parametrize("name", COUNTED)
def test_a_count_is_told_as_it_is_and_has_no_margin(name: str) -> None:
    after = measured(
        MetricOut(
            name=name,
            moment="after",
            subset="forget",
            value=12345.6,
            n=9,
            direction="lower",
            unit="units",
        )
    )
    assert after.text in {"12,345.6 units", "12,346 units"}
    assert after.text in reading_of(name, None, after)


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_that_could_not_be_computed_says_nothing(name: str) -> None:
    missing = shown(name, None, None)
    assert missing.text == "not available: needs at least 1 deleted pairs; 0 came"
    assert "nothing can be said" in reading_of(name, shown(name, 50.0, None), missing)


def test_a_metric_that_was_not_measured_afterwards_is_said_to_be_so() -> None:
    assert "not measured afterwards" in reading_of("d_f", None, None)


def test_a_change_of_d_f_within_the_margin_of_error_is_no_forgetting() -> None:
    before = shown("d_f", 46.0, (43.0, 49.0), "before")
    after = shown("d_f", 42.0, (39.0, 45.0))
    assert "not larger than the margin of error" in reading_of("d_f", before, after)


def test_quality_is_read_as_the_change_in_points() -> None:
    before = shown("d_test", 91.2, (89.0, 93.4), "before")
    slight, clear = shown("d_test", 90.8, (88.0, 93.0)), shown("d_test", 80.8, (78.0, 83.0))
    assert "by -0.4 points, within the margin" in reading_of("d_test", before, slight)
    assert reading_of("d_test", before, clear).endswith("changed by -10.4 points.")
    assert "did not change" in reading_of("d_test", before, shown("d_test", 91.2, None))


def test_values_are_written_with_their_interval() -> None:
    assert shown("d_f", 11.25, (8.5, 14.75)).text == "11.2 (8.5 to 14.8)"
    assert shown("unseen_auc", 0.494, (0.43, 0.551)).text == "0.49 (0.43 to 0.55)"
    assert shown("d_f", 11.25, None).text == "11.2 (no interval: too few pairs)"


def test_never_seen_pairs_are_read_by_the_aim_that_was_asked_for() -> None:
    below, at = shown("unseen_auc", 0.2, (0.1, 0.3)), shown("unseen_auc", 0.5, (0.4, 0.6))
    assert "'decouple' accepts this" in reading_of("unseen_auc", None, below)
    assert "'calibrated' was missed" in reading_of("unseen_auc", None, below, "calibrated")
    assert "is the aim 'calibrated'" in reading_of("unseen_auc", None, at, "calibrated")
    assert "aim" not in reading_of("unseen_auc", None, at)


def test_d_f_is_not_what_the_aim_calibrated_is_judged_by() -> None:
    after = shown("d_f", 40.0, (35.0, 45.0))
    assert "judged against never seen pairs" in reading_of("d_f", None, after, "calibrated")
    assert "judged" not in reading_of("d_f", None, after)


@pytest.mark.parametrize("name", ["probe_item", "probe_text", "forget_accuracy", "f1", "ir_r1"])
def test_shares_are_read_as_the_change_in_points(name: str) -> None:
    before, after = shown(name, 90.0, (88.0, 92.0), "before"), shown(name, 70.0, (66.0, 74.0))
    assert reading_of(name, before, after).endswith("changed by -20.0 points.")


def test_a_share_without_a_figure_from_before_has_no_change() -> None:
    assert "no figure from before" in reading_of(
        "probe_item", None, shown("probe_item", 90.0, None)
    )


def test_a_metric_that_is_unknown_here_refers_to_its_definition() -> None:
    assert reading_of("new", None, None) == "See the metric's definition."
    assert shown("new", 0.12345, (0.1, 0.2)).text == "0.123 (0.100 to 0.200)"


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_has_a_title_of_its_own_and_a_meaning_in_sentences(name: str) -> None:
    explained = METRICS[name]
    assert [one.title for one in METRICS.values()].count(explained.title) == 1
    assert len(explained.meaning) > 40
    assert explained.meaning.endswith(".")


@pytest.mark.parametrize(
    ("excess", "said"),
    [
        (0.0, "No more was lost than was granted."),
        (0.04, "No more was lost than was granted."),
        (1.26, "More was lost than was granted: 1.3"),
    ],
)
def test_what_was_lost_beyond_what_was_granted_is_told(excess: float, said: str) -> None:
    assert reading_of("utility_excess", None, shown("utility_excess", excess, None)).startswith(
        said
    )
