"""Tables from results made by hand. The quantiles are those of printed tables of Student's t:
4.303 for 2 and 12.706 for 1 degree of freedom.
"""

from pathlib import Path

import pytest

from benchmarks.paper import results as results_module
from benchmarks.paper.grid import Table
from benchmarks.paper.plan import FINAL
from benchmarks.paper.results import Mean, Results
from benchmarks.paper.tables import absences, tables
from tests.benchmarks.made_results import (
    Json,
    attacked,
    both,
    cell,
    content,
    ended,
    in_sequence,
    in_sequences,
    labelled,
    mapped,
    metric,
    traded,
    unlearned,
)

PUBLISHED = Path(results_module.__file__).parents[1] / "results" / "pgr_attack" / "results.json"


def _table(results: Results, start: str) -> Table:
    return next(table for table in tables(results) if table.title.startswith(start))


def _row(table: Table, name: str) -> list[str]:
    found = next(list(row) for row in table.rows if row[0] == name)
    return found[1:]


def test_the_interval_of_a_mean_is_students() -> None:
    # s = 2, so 4.303 * 2 / sqrt(3) = 4.968
    mean = Mean.of([70.0, 72.0, 74.0])
    assert mean is not None
    assert mean.value == 72.0
    assert mean.half == pytest.approx(4.968, abs=1e-3)
    # s = sqrt(2), so 12.706 * sqrt(2) / sqrt(2)
    two = Mean.of([50.0, 52.0])
    assert two is not None
    assert two.half == pytest.approx(12.706, abs=1e-3)


def test_one_seed_has_no_interval_and_none_has_no_mean() -> None:
    assert Mean.of([3.0]) == Mean(3.0, None, 1)
    assert Mean.of([]) is None


def _three_seeds() -> Json:
    """Two data sets, three seeds; D_test 70, 72, 74 and 80, 84, 88, D_f 20, 20, 20 and 10, 12, 14."""
    values = {"a": [(70, 20), (72, 20), (74, 20)], "b": [(80, 10), (84, 12), (88, 14)]}
    cells, runs = [], {}
    for preset, pairs in values.items():
        for seed, (test, forgetting) in enumerate(pairs):
            run_id = f"{preset}{seed}"
            cells.append(cell(preset, "multidelete", run_id, seed=seed))
            runs[run_id] = unlearned(both(test, forgetting, 1.0 + seed / 10))
    cells.append(cell("a", "retrain-F", None, reason="it trains everything"))
    cells.append(cell("b", "neggrad", "diverged"))
    runs["diverged"] = ended("diverged", "NaN")
    return content(cells, runs)


def test_table_2_has_means_with_intervals_over_seeds_and_over_data_sets() -> None:
    table = _table(Results(_three_seeds()), "Table 2")
    assert list(table.headings) == [
        "Method", "A D_test", "A D_f", "B D_test", "B D_f", "Avg. D_test", "Avg. D_f",
    ]  # fmt: skip
    # B: s = 4 and 2. Averages by seed: 75, 78, 81 (s = 3) and 15, 16, 17 (s = 1).
    assert _row(table, "MultiDelete") == [
        "72.0 ± 5.0", "20.0 ± 0.0", "84.0 ± 9.9", "12.0 ± 5.0", "78.0 ± 7.5", "16.0 ± 2.5",
    ]  # fmt: skip


def test_a_summary_of_each_data_set_and_amount_comes_first() -> None:
    found = list(tables(Results(_three_seeds())))
    assert [table.title for table in found[:2]] == ["A, 10% deleted", "B, 10% deleted"]
    row = dict(zip(found[0].headings, ["", *_row(found[0], "MultiDelete")], strict=True))
    # D_test was 90 and is 70, 72, 74.
    assert (row["D_test"], row["lost"], row["D_f"]) == ("72.0 ± 5.0", "18.0 ± 5.0", "20.0 ± 0.0")
    assert (row["MI ratio"], row["probe: text"]) == ("1.10 ± 0.25", "-")
    original = dict(zip(found[0].headings, ["", *_row(found[0], "Original")], strict=True))
    assert (original["D_test"], original["lost"]) == ("90.0 ± 0.0", "-")


def test_settings_can_be_chosen_by_validation_pairs_alone() -> None:
    measured = [metric("d_test", 80.0, "val", "before"), metric("d_test", 78.5, "val")]
    runs = {"m": unlearned([*both(70.0, 20.0), *measured])}
    table = _table(Results(content([cell("a", "multidelete", "m")], runs)), "On validation pairs")
    assert list(table.headings) == ["Method", "A, D_test", "A, lost"]
    assert _row(table, "Original") == ["80.0", "-"]
    assert _row(table, "MultiDelete") == ["78.5", "1.5"]


def test_the_originals_row_is_what_methods_found_before() -> None:
    table = _table(Results(_three_seeds()), "Table 2")
    assert table.rows[0] == ["Original", *["90.0 ± 0.0", "50.0 ± 0.0"] * 3]


def test_a_refused_method_a_diverged_run_and_a_missing_one_are_told_apart() -> None:
    table = _table(Results(_three_seeds()), "Table 2")
    assert _row(table, "Retrain-F") == ["N/A", "N/A", "-", "-", "-", "-"]
    assert _row(table, "NegGrad") == ["-", "-", "diverged", "diverged", "-", "-"]


def test_a_cell_whose_run_is_not_in_the_file_is_missing_and_not_refused() -> None:
    cells = [cell("a", "ul", "gone"), cell("a", "multidelete", "m")]
    results = Results(content(cells, {"m": unlearned(both(57.4, 48.7))}))
    assert _row(_table(results, "Table 2"), "UL") == ["-", "-", "-", "-"]
    assert absences(results) == [
        "- A: UL (10% deleted, seed 0): missing: its run is not in results.json",
        "- A: MultiDelete (10% deleted, seed 0): no mi_ratio: too few pairs",
    ]


def test_a_mean_says_of_how_many_seeds_it_is_where_some_have_no_value() -> None:
    cells = [cell("a", "lcodec", f"l{seed}", seed=seed) for seed in range(4)]
    runs = {
        "l0": unlearned(both(57.0, 48.0)),
        "l1": ended("diverged", "NaN"),
        "l2": unlearned(both(59.0, 48.0)),
        "l3": ended("diverged", "NaN"),
    }
    results = Results(content(cells, runs))
    found = _row(_table(results, "Table 2"), "L-codec")[0]
    assert found == "58.0 ± 12.7 (2 of 4)"
    why = [line for line in absences(results) if "mi_ratio" not in line]
    assert why == ["- A: L-codec (10% deleted, seeds 1, 3): diverged: NaN"]


def test_a_mean_over_data_sets_takes_those_that_have_a_value() -> None:
    cells = [cell("a", "erm_ktp", "a0"), cell("b", "erm_ktp", None, reason="vision only")]
    table = _table(Results(content(cells, {"a0": unlearned(both(57.4, 48.7))})), "Table 2")
    assert _row(table, "Erm-Ktp") == ["57.4", "48.7", "N/A", "N/A", "57.4", "48.7"]


def test_retrieval_has_a_column_for_each_direction() -> None:
    recalls = {"ir_r1": 30, "ir_r5": 60, "ir_r10": 90, "tr_r1": 40, "tr_r5": 50, "tr_r10": 60}
    found = [metric(name, value, "test") for name, value in recalls.items()]
    runs = {"x": unlearned([*found, metric("d_f", 25.0, "forget")])}
    table = _table(Results(content([cell("a", "ul", "x")], runs)), "Table 2")
    assert list(table.headings)[1:5] == ["A IR D_test", "A IR D_f", "A TR D_test", "A TR D_f"]
    assert _row(table, "UL")[:4] == ["60.0", "25.0", "50.0", "25.0"]


def test_each_family_of_a_data_set_has_tables_of_its_own() -> None:
    cells = [cell("a", "ul", "1"), {**cell("a", "ul", "2"), "family": "blip"}, cell("b", "ul", "3")]
    runs = {name: unlearned(both(80.0 + int(name), 40.0)) for name in "123"}
    found = [t for t in tables(Results(content(cells, runs))) if t.title.startswith("Table 2")]
    assert [_row(table, "UL") for table in found] == [
        ["81.0", "40.0", "83.0", "40.0", "82.0", "40.0"],
        ["82.0", "40.0", "82.0", "40.0"],
    ]


def test_table_3_has_the_ratio_with_two_decimals() -> None:
    # 1.0, 1.1, 1.2: s = 0.1, so 0.248
    table = _table(Results(_three_seeds()), "Table 3")
    assert _row(table, "MultiDelete") == ["1.10 ± 0.25", "1.10 ± 0.25", "1.10 ± 0.25"]


def test_the_attack_behind_table_3_has_its_own_quality_beside_it() -> None:
    found = [
        metric("mi_attack_auc", 0.6414, "forget", "before"),
        metric("mi_attack_auc", 0.5512, "forget"),
        metric("mi_tpr_at_1pct_fpr", 0.032, "forget", "before"),
        metric("mi_tpr_at_1pct_fpr", 0.018, "forget"),
    ]
    made = content([cell("a", "ul", "x")], {"x": unlearned(found)}, seeds=1)
    table = _table(Results(made), "The attack behind the ratio")
    assert list(table.headings) == ["Method", "A, AUC", "A, TPR at 1% FPR"]
    assert _row(table, "Original") == ["0.641", "3.2"]
    assert _row(table, "UL") == ["0.551", "1.8"]


def test_methods_stand_in_their_order_though_one_was_run_on_the_second_data_set_alone() -> None:
    runs = {name: unlearned(both(80.0, 40.0)) for name in ("x", "y", "z")}
    cells = [cell("a", "retrain", "x"), cell("a", "ul", "y"), cell("b", "erm_ktp", "z")]
    table = _table(Results(content(cells, runs, seeds=1)), "Table 2")
    assert [row[0] for row in table.rows] == ["Original", "Retrain", "Erm-Ktp", "UL"]


def test_an_amount_that_a_data_set_was_not_run_with_has_no_summary() -> None:
    runs = {"x": unlearned(both(80.0, 40.0)), "y": unlearned(both(70.0, 30.0))}
    cells = [cell("a", "ul", "x"), cell("b", "ul", "y", amount="20%")]
    made = content(cells, runs, seeds=1)
    made["options"]["amounts"] = ["10%", "20%"]
    titles = [table.title for table in tables(Results(made))]
    assert titles[:2] == ["A, 10% deleted", "B, 20% deleted"]


def _ablated() -> tuple[list[Json], dict[str, Json]]:
    """Table 4's rows by D_test, D_f and both probes; the original has 90, 50, 84 and 80."""
    rows = {
        "retrain": (67.5, 50.2, 82, 78),
        "full model": (67.8, 18.6, 83, 79),
        "- MD": (67.5, 49.3, 84, 80),
        "- UKR": (66.0, 18.0, 61, 55),
    }
    before = [metric(name, 84.0, "forget", "before") for name in ("probe_item", "probe_text")]
    runs = {}
    for row, (test, forgetting, item, text) in rows.items():
        probes = [metric("probe_item", item, "forget"), metric("probe_text", text, "forget")]
        runs[row] = unlearned([*both(test, forgetting), *before, *probes])
    return [cell("a", row, row, part="ablation") for row in rows], runs


def test_table_4_has_the_ablations_of_the_paper_and_what_its_claims_are_read_from() -> None:
    table = _table(Results(content(*_ablated())), "Table 4: without each part, A, 10% deleted")
    assert list(table.headings) == [
        "Method", "D_test", "lost", "D_f", "probe: image or graph", "probe: text",
        "median score of D_r",
    ]  # fmt: skip
    assert [row[0] for row in table.rows] == ["Original", "Retrain", "Full model", "- MD", "- UKR"]
    # All four retained pairs are in the upper of the two bins from 0 to 1.
    assert _row(table, "Original") == ["90.0", "-", "50.0", "84.0", "84.0", "0.75"]
    assert _row(table, "- UKR") == ["66.0", "24.0", "18.0", "61.0", "55.0", "0.75"]


def test_table_4_of_retrieval_has_both_directions_of_d_test_and_one_d_f() -> None:
    found = [metric(f"{way}_r{k}", 30.0 + k, "test") for way in ("ir", "tr") for k in (1, 5, 10)]
    cells, runs = _ablated()
    runs["full model"]["metrics"] += found
    table = _table(Results(content(cells, runs)), "Table 4")
    assert list(table.headings)[1:5] == ["IR D_test", "TR D_test", "lost", "D_f"]


def test_a_row_of_which_d_f_could_not_be_measured_has_no_median_score() -> None:
    found = both(67.5, 49.3)
    for one in found:
        if one["name"] == "d_f":  # as results.json has it
            one["value"] = None
            del one["details"]
    cells = [cell("a", "- MD", "x", part="ablation")]
    table = _table(Results(content(cells, {"x": unlearned(found)})), "Table 4")
    assert _row(table, "- MD")[-1] == "-"


def test_a_data_set_has_no_row_of_an_ablation_that_it_does_without() -> None:
    cells = [cell(name, "- MD", "x", part="ablation") for name in "ab"]
    cells.append(cell("b", "- balance", "x", part="ablation"))
    found = tables(Results(content(cells, {"x": unlearned(both(67.5, 49.3))})))
    first, second = (table for table in found if table.title.startswith("Table 4"))
    assert [row[0] for row in first.rows] == ["Original", "- MD"]
    assert [row[0] for row in second.rows] == ["Original", "- MD", "- balance"]


def test_table_5_has_methods_as_columns() -> None:
    def probed(item: float, text: float) -> Json:
        before = [metric("probe_item", 84.0, "forget", "before")]
        after = [metric("probe_item", item, "forget"), metric("probe_text", text, "forget")]
        return unlearned([*before, *after])

    cells = [cell("a", "finetune", "f"), cell("a", "multidelete", "m")]
    runs = {"f": probed(83.2, 70.0), "m": probed(83.6, 71.0)}
    table = _table(Results(content(cells, runs)), "Table 5")
    assert list(table.headings) == ["Accuracy", "Original", "FineTune", "MultiDelete"]
    assert list(table.rows[0]) == ["A, image or graph", "84.0", "83.2", "83.6"]
    assert list(table.rows[1]) == ["A, text", "-", "70.0", "71.0"]


def test_table_5_ends_with_the_ablation_that_the_paper_has_there() -> None:
    cells, runs = _ablated()
    cells += [cell("a", "multidelete", f"m{seed}", seed=seed) for seed in (0, 1)]
    probe = [metric("probe_item", 82.0, "forget")]
    runs |= {f"m{seed}": unlearned(probe) for seed in (0, 1)}
    table = _table(Results(content(cells, runs)), "Table 5")
    assert list(table.headings) == ["Accuracy", "Original", "MultiDelete", "- UKR"]
    assert list(table.rows[0]) == ["A, image or graph", "-", "82.0 ± 0.0", "61.0"]
    assert "1 of 2 seed(s)" in table.note
    alone = [one for one in cells if one["part"] == "main"]
    table = _table(Results(content(alone, runs)), "Table 5")
    assert list(table.headings) == ["Accuracy", "Original", "MultiDelete"]
    assert "UKR" not in table.note


def test_choices_stand_beside_what_was_not_chosen() -> None:
    table = _table(
        Results(content(*mapped())), "Mappings that were chosen, and others: A, 10% deleted"
    )
    assert [list(row) for row in table.rows] == [
        ["Original", "90.0", "-", "50.0", "-", "-"],
        ["L-codec", "88.0", "2.0", "50.0", "-", "2"],
        ["L-codec, no noise", "89.0", "1.0", "49.0", "-", "2"],
    ]


def test_what_is_asked_for_has_means_over_its_seeds() -> None:
    table = _table(Results(content(*traded())), "Trade-off between the two aims: A, 10% deleted")
    assert list(table.headings) == [
        "Method", "D_test", "D_f", "AUC against the unseen", "MI ratio",
    ]  # fmt: skip
    # Two seeds that differ by d: 12.706 * d / 2.
    assert [list(row) for row in table.rows] == [
        ["Original", "90.0 ± 0.0", "50.0 ± 0.0", "0.650 ± 0.000", "-"],
        ["target 5", "81.0 ± 12.7", "11.0 ± 12.7", "0.310 ± 0.127", "1.60 ± 1.27"],
        ["target 50", "89.0 ± 12.7", "49.0 ± 12.7", "0.610 ± 0.127", "1.10 ± 1.27"],
        ["calibrated", "86.0 ± 12.7", "29.0 ± 12.7", "0.510 ± 0.127", "1.30 ± 1.27"],
    ]
    assert "One seed" not in table.note


def test_the_attack_on_each_pair_is_on_this_model_and_over_references() -> None:
    results = Results(content(*attacked()))
    found = {}
    for group in ("deleted", "retained"):
        table = _table(results, f"Attack on each of the {group} pairs, A, 10% deleted")
        found[group] = dict(zip(table.headings, ["", *_row(table, "MultiDelete")], strict=True))
        assert "TPR in points of 100" in table.note
    assert found["deleted"] == {
        "Method": "",
        "AUC": "0.550",
        "AUC, over references": "0.520",
        "TPR at 1% FPR": "-",
        "TPR at 1% FPR, over references": "1.4",
        "TPR at 0.1% FPR": "-",
        "TPR at 0.1% FPR, over references": "-",
    }
    assert found["retained"] == {
        "Method": "",
        "AUC": "0.600",
        "AUC, over references": "0.580",
        "TPR at 1% FPR": "2.5",
        "TPR at 1% FPR, over references": "2.0",
        "TPR at 0.1% FPR": "-",
        "TPR at 0.1% FPR, over references": "0.3",
    }


def test_a_rate_of_the_attack_that_has_too_few_pairs_is_explained() -> None:
    lines = absences(Results(content(*attacked())))
    of_the_run = "- A: MultiDelete (10% deleted, seed 0): no"
    assert f"{of_the_run} ulira_tpr_at_1pct_fpr (forget): needs more; 90 came" in lines
    over = f"{of_the_run} ulira_tpr_at_0.1pct_fpr over references (forget): needs at least 1000 "
    assert [line for line in lines if line.startswith(over)]


def test_rates_of_runs_are_shares_and_those_of_the_table_points() -> None:
    results = Results.read(PUBLISHED)
    rates = [
        m["value"]
        for run in results.content["runs"].values()
        for m in run["metrics"]
        if "_tpr_" in m["name"] and m["value"] is not None
    ]
    assert rates
    assert max(rates) <= 1
    table = _table(results, "Attack on each of the retained pairs")
    at = table.headings.index("TPR at 1% FPR") - 1
    assert 100 * min(rates) - 0.1 <= float(_row(table, "Retrain")[at]) <= 100 * max(rates) + 0.1
    assert float(_row(table, "Retrain")[at]) > 1


def test_without_reference_models_there_is_no_table_of_the_attack() -> None:
    found = [table.title for table in tables(Results(_three_seeds()))]
    assert not [title for title in found if title.startswith("Attack")]


def test_each_label_has_its_own_forgetting_and_its_own_attacks() -> None:
    table = _table(Results(content(*labelled())), "By label, A, 10% deleted")
    assert list(table.headings)[1:4] == ["D_f: label 0", "D_f: label 2", "D_f: label 10"]
    assert _row(table, "MultiDelete") == [
        "18.0", "9.0", "-", "0.410", "0.320", "-", "1.10", "1.40", "-",
    ]  # fmt: skip
    assert _row(table, "Original") == [
        "51.0", "49.0", "-", "0.600", "0.700", "-", "-", "-", "-",
    ]  # fmt: skip


def test_f1_stands_in_the_summary_of_tasks_that_have_it() -> None:
    first = next(tables(Results(content(*labelled()))))
    assert list(first.headings)[:4] == ["Method", "D_test", "lost", "F1"]
    assert [row[3] for row in first.rows] == ["66.0", "64.5"]
    assert "F1" not in next(tables(Results(_three_seeds()))).headings


def test_time_against_size_is_a_mean_over_seeds_for_each_size() -> None:
    cells, runs = [], {}
    for row, factor in (("retrain", 0.0), ("multidelete", 1.0)):
        for pairs in (5, 10):
            for seed in (0, 1):
                name = f"{row}{pairs}{seed}"
                more = {"part": "sizes", "amount": str(pairs)}
                cells.append(cell("a", row, name, seed=seed, **more))
                seconds = 20 + factor * pairs + 2 * seed
                runs[name] = unlearned(both(89.0, 20.0), seconds=seconds, pairs=pairs)
    table = _table(Results(content(cells, runs)), "Time against |D_f|: A")
    assert list(table.headings) == ["Method", "5 pairs", "10 pairs"]
    # s = sqrt(2), so 12.706 * sqrt(2) / sqrt(2)
    assert _row(table, "Retrain") == ["21.0 ± 12.7", "21.0 ± 12.7"]
    assert _row(table, "MultiDelete") == ["26.0 ± 12.7", "31.0 ± 12.7"]


def test_a_sequence_stands_beside_the_same_requests_at_once() -> None:
    table = _table(Results(content(*in_sequence())), "Requests in sequence: A, 17% deleted in all")
    row = dict(zip(table.headings, ["", *_row(table, "request-01")], strict=True))
    assert row == {
        "Request": "",
        "D_test after it": "88.0",
        "D_f after it": "30.0",
        "MI ratio after it": "1.20",
        "D_f after the last": "33.0",
        "D_f rise": "3.0",
        "AUC against the unseen after the last": "0.450",
        "MI ratio after the last": "1.50",  # .6 by the original, .4 by the last model
        "D_f at once": "28.0",
        "AUC against the unseen at once": "-",
        "MI ratio at once": "1.40",
    }
    assert "after the last 87.0, at once 89.0" in table.note


def test_the_last_row_of_a_sequence_is_the_mean_and_the_last_request_has_no_rise() -> None:
    table = _table(Results(content(*in_sequence())), "Requests in sequence")
    place = list(table.headings).index("D_f rise")
    assert [row[place] for row in table.rows] == ["3.0", "1.0", "2.0", "-", "2.0"]
    assert "Most that one request rose: 3.0." in table.note
    assert list(table.rows[-1]) == [
        "mean", "88.0", "33.0", "1.20", "34.5", "2.0", "0.450", "1.50", "28.0", "-", "1.40",
    ]  # fmt: skip


def test_sequences_of_several_seeds_are_means_with_intervals_over_the_seeds() -> None:
    table = _table(Results(content(*in_sequences())), "Requests in sequence")
    place = list(table.headings).index("D_f rise")
    # 3 and 6, 1 and 2, 2 and 4; means 2 and 4: half is 12.706 times half the difference
    assert [row[place] for row in table.rows] == [
        "4.5 ± 19.1", "1.5 ± 6.4", "3.0 ± 12.7", "-", "3.0 ± 12.7",
    ]  # fmt: skip
    assert "Most that one request rose: 6.0." in table.note
    assert "D_test after the last 87.0 ± 0.0, at once 89.0 ± 0.0" in table.note


def test_a_sequence_without_what_the_attack_says_of_deleted_pairs_has_no_ratio_after_the_last() -> (
    None
):
    cells, runs = in_sequence()
    for one in runs[FINAL]["metrics"]:
        one["details"].pop("mean_on_deleted", None)
    table = _table(Results(content(cells, runs)), "Requests in sequence")
    place = list(table.headings).index("MI ratio after the last")
    assert {row[place] for row in table.rows} == {"-"}


def test_every_absence_is_explained_once() -> None:
    assert absences(Results(_three_seeds())) == [
        "- A: Retrain-F: not applicable: it trains everything",
        "- B: NegGrad (10% deleted, seed 0): diverged: NaN",
    ]
