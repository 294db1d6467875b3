"""The report: where it was measured, and which runs are behind each number."""

import json
from pathlib import Path

import pytest

from benchmarks.paper.__main__ import main
from benchmarks.paper.report import markdown, write_results
from benchmarks.paper.results import Results
from tests.benchmarks.made_results import Json, both, cell, content, ended, unlearned

OLD, NEW = "0123456789abcdef", "fedcba9876543210"


def _results() -> Json:
    """Two seeds that ran at two commits, one run that was not done, and a method that is refused."""
    runs = {
        OLD: unlearned(both(70.0, 20.0), commit="old"),
        NEW: unlearned(both(72.0, 20.0), seconds=3.0, commit="new"),
        "later": ended("missing", "it was not run"),
    }
    cells = [
        cell("a", "multidelete", OLD),
        cell("a", "multidelete", NEW, seed=1),
        cell("a", "retrain-F", None, reason="it trains everything"),
        cell("a", "- MD", OLD, part="ablation"),
        cell("a", "- MKR", "later", part="ablation"),
    ]
    return content(cells, runs, seeds=2)


def test_the_report_names_commits_and_machines_of_the_runs_and_not_its_own() -> None:
    lines = markdown(Results(_results())).splitlines()
    assert lines[2:7] == [
        "- Commits: new (1 run); old (1 run)",
        "- Machines: one, 2 cores, Python 3.11 (2 runs)",
        "- Platforms: Linux x86_64, device cpu, torch 2.0 (2 runs)",
        "- Asked for: 1 thread(s) a run, 2 seed(s)",
        "- Put together at commit def",
    ]
    assert any(line.startswith("| MultiDelete | 71.0 ± 12.7 | 20.0 ± 0.0 |") for line in lines)


def test_the_report_says_which_seeds_and_settings_were_asked_for() -> None:
    made = _results()
    given = {"first_seed": 100, "settings": {"multidelete": {"alpha": 6.0, "target": 20.0}}}
    made["options"] = {**made["options"], **given}
    assert (
        "- Asked for: 1 thread(s) a run, 2 seed(s) from 100 on, multidelete.alpha = 6.0, "
        "multidelete.target = 20.0"
    ) in markdown(Results(made)).splitlines()


def test_every_number_can_be_traced_to_its_runs(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need the extra `bench`")
    write_results(_results(), tmp_path)
    out = tmp_path / "report"
    assert main(["--report", str(tmp_path / "results.json"), "--out", str(out)]) == 0
    rows = [line for line in (out / "runs.md").read_text().splitlines() if line.startswith("|")]
    assert rows[2:] == [
        "| main | 10% | multidelete | A | 0: `01234567`, 1: `fedcba98` |",
        "| ablation | 10% | - MD | A | 0: `01234567` |",
        "| ablation | 10% | - MKR | A | 0: `later` (missing) |",
    ]
    found = json.loads((tmp_path / "results.json").read_text())["runs"]
    assert {name[:8] for name in found} == {"01234567", "fedcba98", "later"}
