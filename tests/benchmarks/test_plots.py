"""Plots: they are there, they are the same twice, and they can be done without."""

import sys
from pathlib import Path

import pytest

from benchmarks.figures import BenchmarkError
from benchmarks.paper.plots import _aims_by_kind, draw
from benchmarks.paper.report import write_report
from benchmarks.paper.results import Results
from tests.benchmarks.made_results import both, cell, content, metric, traded, unlearned


def _results() -> Results:
    rows = {"retrain": (90.0, 45.0), "multidelete": (89.0, 20.0), "multidelete-F": (88.0, 25.0)}
    cells = [cell("a", row, row) for row in rows]
    runs = {row: unlearned(both(*values)) for row, values in rows.items()}
    for pairs in (2, 4, 6, 8, 10):
        run_id = f"size{pairs}"
        cells.append(cell("a", "multidelete", run_id, part="sizes", amount=str(pairs)))
        runs[run_id] = unlearned(both(89.0, 20.0), seconds=pairs / 2, pairs=pairs)
    more = traded()
    cells, runs = cells + more[0], runs | more[1]
    return Results(content(cells, runs))


def test_every_plot_is_written_in_both_formats_and_twice_the_same(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need the extra `bench`")
    first, second = (draw(_results(), tmp_path / name) for name in ("first", "second"))
    stems = ["d_f-d_test-a-gcn_bert-10pct", "aims-a-gcn_bert", "time-a-gcn_bert"]
    stems += [f"scores-a-gcn_bert-{m}-10pct" for m in ("retrain", "multidelete", "multidelete-F")]
    assert [file.name for file in first] == [
        f"{s}.{kind}" for s in stems for kind in ("png", "svg")
    ]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
        assert one.stat().st_size > 5000


def test_plots_of_an_earlier_call_that_asked_for_more_are_gone_and_nothing_else_is(
    tmp_path: Path,
) -> None:
    pytest.importorskip("matplotlib", reason="plots need the extra `bench`")
    draw(_results(), tmp_path)
    others = [tmp_path / name for name in ("mine.png", "scores-of-mine.txt")]
    for file in others:
        file.write_text("mine")
    fewer = Results(content([cell("a", "retrain", "r")], {"r": unlearned(both(90.0, 45.0))}))
    assert {*draw(fewer, tmp_path), *others} == set(tmp_path.iterdir())


def test_scores_are_drawn_of_the_first_seed_whichever_it_is(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need the extra `bench`")
    cells = [cell("a", "multidelete", f"m{seed}", seed=seed) for seed in (101, 100)]
    runs = {f"m{seed}": unlearned(both(89.0, 20.0)) for seed in (100, 101)}
    names = [file.name for file in draw(Results(content(cells, runs)), tmp_path)]
    assert [name for name in names if name.startswith("scores")] == [
        f"scores-a-gcn_bert-multidelete-10pct.{kind}" for kind in ("png", "svg")
    ]


def test_the_two_aims_are_drawn_by_means_over_seeds_with_intervals() -> None:
    results = Results(content(*traded()))
    cells = results.select("tradeoff", ("a", "gcn_bert"))
    shown = _aims_by_kind(results, ("a", "gcn_bert"), cells)
    assert {name: len(points) for name, points in shown.items()} == {
        "decouple": 2, "calibrated": 1, "original": 1
    }  # fmt: skip
    (d_f, unseen, test), _ = shown["decouple"]
    assert (d_f.value, unseen.value, test.value) == (11.0, pytest.approx(0.31), 81.0)
    assert (d_f.n, d_f.half) == (2, pytest.approx(12.706, abs=1e-3))
    assert [mean.value for mean in shown["original"][0]] == [50.0, 0.65, 90.0]


def test_the_yardstick_has_the_seeds_of_the_curve() -> None:
    cells, runs = traded()
    for seed in range(4):
        cells.append(cell("a", "retrain", f"r{seed}", seed=seed))
        found = [*both(89.0, 40.0 + seed), metric("unseen_auc", 0.5, "forget")]
        runs[f"r{seed}"] = unlearned(found)
    results = Results(content(cells, runs))
    traded_cells = results.select("tradeoff", ("a", "gcn_bert"))
    ((d_f, *_),) = _aims_by_kind(results, ("a", "gcn_bert"), traded_cells)["Retrain"]
    assert (d_f.value, d_f.n) == (40.5, 2)


def test_without_matplotlib_the_tables_are_there_and_a_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # so that its import fails
    with pytest.raises(BenchmarkError, match=r"\[bench\]"):
        write_report(_results(), tmp_path)
    assert "MultiDelete" in (tmp_path / "tables.md").read_text()
