"""Results of several calls in one file."""

import json
from pathlib import Path

import pytest

from benchmarks.figures import BenchmarkError
from benchmarks.paper.__main__ import main
from benchmarks.paper.layout import read
from benchmarks.paper.report import write_results
from benchmarks.paper.together import together
from tests.benchmarks.made_results import Json, both, cell, content, ended, unlearned


def _run(
    value: float, *, test: float = 70.0, parent: str | None = None, config: Json | None = None
) -> Json:
    made = unlearned([])
    return {
        **made,
        "metrics": both(test, value),
        "parent": parent,
        "spec": {**made["spec"], "config": config or {}},
    }


def _file(folder: Path, made: Json) -> Path:
    folder.mkdir()
    write_results(made, folder)
    return folder / "results.json"


def _first(tmp_path: Path) -> Path:
    """Three rows of one data set: one to be replaced, one to be kept, one that never ended."""
    runs = {
        "first": _run(50.0),
        "original": _run(50.0, config={"pretrained": "first"}),
        "alone": _run(50.0),
        "old": _run(40.0, parent="alone"),
        "kept": _run(30.0, parent="original"),
        "cut": ended("missing", "it was not run"),
    }
    cells = [
        cell("a", "retrain", "kept"),
        cell("a", "multidelete", "old"),
        cell("a", "dtd", "cut"),
        cell("a", "- MD", "kept", part="ablation"),
    ]
    return _file(tmp_path / "one", content(cells, runs, seeds=1))


def _second(tmp_path: Path, **changed: object) -> Path:
    """The replaced row, a new row that stands between others, and another data set and amount."""
    runs = {
        "new": _run(20.0),
        "more": _run(25.0),
        "ktp": _run(45.0),
        "tried": ended("failed", "the disk was full"),
    }
    cells = [
        cell("a", "multidelete", "new"),
        cell("a", "multidelete", "more", amount="20%", seed=1),
        cell("a", "erm_ktp", "ktp"),
        cell("a", "retrain", "tried"),
        cell("b", "retrain", None, reason="it has no such data"),
    ]
    made = content(cells, runs, seeds=2)
    options = {**made["options"], "amounts": ["20%", "10%"]}
    return _file(tmp_path / "two", {**made, "options": options, **changed})


def test_the_last_run_that_ended_fills_a_cell_and_rows_keep_the_order_of_the_plan(
    tmp_path: Path,
) -> None:
    made = together([_first(tmp_path), _second(tmp_path)])
    found = [(c["preset"], c["part"], c["amount"], c["row"], c["run_id"]) for c in made["cells"]]
    assert found == [
        ("a", "main", "10%", "retrain", "kept"),
        ("a", "main", "10%", "dtd", "cut"),
        ("a", "main", "10%", "erm_ktp", "ktp"),
        ("a", "main", "10%", "multidelete", "new"),
        ("a", "main", "20%", "multidelete", "more"),
        ("a", "ablation", "10%", "- MD", "kept"),
        ("b", "main", "10%", "retrain", None),
    ]
    # What `kept` started from is there, and what only the replaced run needed is not.
    assert set(made["runs"]) == {"first", "original", "kept", "cut", "ktp", "new", "more"}
    assert made["options"]["amounts"] == ["10%", "20%"]
    assert made["options"]["seeds"] == 2
    assert made["options"]["parts"] == ["main", "ablation"]
    assert set(made["data"]) == {"a", "b"}


def test_the_command_writes_what_it_put_together_beside_the_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="plots need the extra `bench`")
    one, two, out = _first(tmp_path), _second(tmp_path), tmp_path / "out"
    call = ["--report", str(one), "--report", str(two), "--out", str(out)]
    assert main(call) == 0
    assert str(out / "results.json") in capsys.readouterr().out
    assert read(out / "results.json")["cells"] == together([one, two])["cells"]
    assert "| MultiDelete | 70.0 | 20.0 |" in (out / "tables.md").read_text()
    # Into one of the folders that it reads, and once more: nothing changes.
    assert main([*call[:-1], str(one.parent)]) == 0
    assert read(one)["cells"] == read(out / "results.json")["cells"]
    (out / "results.json").write_text(json.dumps({"accuracy": 1}))
    assert main(call) == 2
    assert "which did not make results.json" in capsys.readouterr().err
    assert json.loads((out / "results.json").read_text()) == {"accuracy": 1}


def test_one_file_alone_is_not_written_anew(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need the extra `bench`")
    out = tmp_path / "out"
    assert main(["--report", str(_first(tmp_path)), "--out", str(out)]) == 0
    assert not (out / "results.json").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"data": {"a": {"title": "A", "sha256": "2"}, "b": {"title": "B"}}},
            "SHA-256 None in one",
        ),
        ({"options": {"amounts": [], "seeds": 1, "threads": 2, "device": "cpu"}}, "with threads 1"),
        ({"options": {"amounts": [], "seeds": 1, "threads": 1, "device": "cuda"}}, "device cpu"),
        (
            {
                "options": {
                    "amounts": [],
                    "seeds": 1,
                    "threads": 1,
                    "device": "cpu",
                    "settings": {"multidelete": {"alpha": 6.0}},
                }
            },
            "was asked for with settings {}, and .* with {'multidelete': {'alpha': 6.0}}",
        ),
        (
            {
                "options": {
                    "amounts": [],
                    "seeds": 1,
                    "first_seed": 100,
                    "threads": 1,
                    "device": "cpu",
                }
            },
            "was asked for with first_seed 0, and .* with 100",
        ),
    ],
)
def test_what_does_not_compare_is_not_put_together(
    changed: Json, said: str, tmp_path: Path
) -> None:
    with pytest.raises(BenchmarkError, match=said):
        together([_first(tmp_path), _second(tmp_path, **changed)])


def test_rows_of_different_originals_are_not_put_together(tmp_path: Path) -> None:
    """A training of one seed on another processor or at another commit may end elsewhere."""
    other = {"mine": _run(50.0, test=71.0), "new": _run(20.0, parent="mine")}
    three = _file(tmp_path / "three", content([cell("a", "ul", "new")], other, seeds=1))
    with pytest.raises(
        BenchmarkError, match=r"seed 0, run original has a D_test of 70\.0 and run mine"
    ):
        together([_first(tmp_path), three])


def test_the_same_run_is_taken_from_where_it_ended(tmp_path: Path) -> None:
    done = {"x": _run(10.0)}
    cut = {"x": ended("missing", "it was not run")}
    files = [
        _file(tmp_path / str(number), content([cell("a", "ul", "x")], runs, seeds=1))
        for number, runs in enumerate((cut, done, cut))
    ]
    assert together(files)["runs"]["x"]["status"] == "done"
