"""Plots: they are there, they are the same twice, and they can be done without."""

import sys
from pathlib import Path

import pytest

from benchmarks.figures import BenchmarkError
from benchmarks.paper.plots import draw
from benchmarks.paper.report import write_report
from benchmarks.paper.results import Results
from tests.benchmarks.made_results import both, cell, content, unlearned


def _results() -> Results:
    rows = {"retrain": (90.0, 45.0), "multidelete": (89.0, 20.0), "multidelete-F": (88.0, 25.0)}
    cells = [cell("a", row, row) for row in rows]
    runs = {row: unlearned(both(*values)) for row, values in rows.items()}
    for pairs in (2, 4, 6, 8, 10):
        run_id = f"size{pairs}"
        cells.append(cell("a", "multidelete", run_id, part="sizes", amount=str(pairs)))
        runs[run_id] = unlearned(both(89.0, 20.0), seconds=pairs / 2, pairs=pairs)
    return Results(content(cells, runs))


def test_every_plot_is_written_in_both_formats_and_twice_the_same(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need the extra `bench`")
    first, second = (draw(_results(), tmp_path / name) for name in ("first", "second"))
    stems = ["d_f-d_test-a-gcn_bert-10pct", "time-a-gcn_bert"]
    stems += [f"scores-a-gcn_bert-{m}-10pct" for m in ("retrain", "multidelete", "multidelete-F")]
    assert [file.name for file in first] == [
        f"{s}.{kind}" for s in stems for kind in ("png", "svg")
    ]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
        assert one.stat().st_size > 5000


def test_without_matplotlib_the_tables_are_there_and_a_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # so that its import fails
    with pytest.raises(BenchmarkError, match=r"\[bench\]"):
        write_report(_results(), tmp_path)
    assert "MultiDelete" in (tmp_path / "tables.md").read_text()
