"""Tables from results made by hand. The quantiles are those of printed tables of Student's t:
4.303 for 2 and 12.706 for 1 degree of freedom.
"""

import pytest

from benchmarks.paper.grid import Table
from benchmarks.paper.plan import AT_ONCE, FINAL
from benchmarks.paper.report import markdown
from benchmarks.paper.results import Mean, Results
from benchmarks.paper.tables import absences, tables
from tests.benchmarks.made_results import Json, both, cell, content, metric, unlearned


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
    runs["diverged"] = {"status": "diverged", "reason": "NaN", "metrics": [], "cost": None}
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


def test_the_originals_row_is_what_methods_found_before() -> None:
    table = _table(Results(_three_seeds()), "Table 2")
    assert table.rows[0] == ["Original", *["90.0 ± 0.0", "50.0 ± 0.0"] * 3]


def test_a_refused_method_a_diverged_run_and_a_missing_one_are_told_apart() -> None:
    table = _table(Results(_three_seeds()), "Table 2")
    assert _row(table, "Retrain-F") == ["N/A", "N/A", "-", "-", "-", "-"]
    assert _row(table, "NegGrad") == ["-", "-", "diverged", "diverged", "-", "-"]


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


def test_table_4_has_the_ablations_of_the_paper() -> None:
    rows = {"retrain": (67.5, 50.2), "full model": (67.8, 18.6), "- MD": (67.5, 49.3)}
    cells = [cell("a", row, row, part="ablation") for row in rows]
    runs = {row: unlearned(both(*values)) for row, values in rows.items()}
    table = _table(Results(content(cells, runs)), "Table 4")
    assert [row[0] for row in table.rows] == ["Retrain", "Full model", "- MD"]
    assert _row(table, "Full model")[:2] == ["67.8", "18.6"]


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


def test_a_sequence_stands_beside_the_same_requests_at_once() -> None:
    runs = {
        "1": unlearned([*both(88.0, 30.0, 1.2)]),
        "2": unlearned([*both(87.0, 31.0, 1.3)]),
        "end": unlearned(
            [
                metric("d_test", 87.0, "test"),
                metric("d_f", 35.0, "request:request-01"),
                metric("unseen_auc", 0.45, "request:request-01"),
                metric("d_f", 31.0, "request:request-02"),
            ]
        ),
        "once": unlearned(
            [
                metric("d_test", 89.0, "test"),
                metric("d_f", 28.0, "request:request-01"),
                metric("mi_ratio", 1.4, "request:request-01"),
            ]
        ),
    }
    rows = {AT_ONCE: "once", "request-01": "1", "request-02": "2", FINAL: "end"}
    cells = [cell("a", row, run, part="sequence") for row, run in rows.items()]
    table = _table(Results(content(cells, runs)), "Requests in sequence")
    assert _row(table, "request-01") == [
        "88.0", "30.0", "1.20", "35.0", "0.450", "28.0", "-", "1.40",
    ]  # fmt: skip
    assert "after the last 87.0, at once 89.0" in table.note


def test_every_absence_is_explained_once() -> None:
    assert absences(Results(_three_seeds())) == [
        "- A: Retrain-F: not applicable: it trains everything",
        "- B: NegGrad: diverged: NaN",
    ]


def test_the_report_says_where_it_was_measured() -> None:
    text = markdown(Results(_three_seeds()))
    assert "Commit abc; processor one; device cpu, 1 thread(s) a run, 3 seed(s)." in text
    assert "| MultiDelete | 72.0 ± 5.0 | 20.0 ± 0.0 |" in text
