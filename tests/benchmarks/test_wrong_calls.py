"""`lethe bench paper` called wrongly: 2, one sentence, and nothing written."""

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.figures import BenchmarkError
from benchmarks.paper.__main__ import _options, _parser, main
from benchmarks.paper.presets import PRESETS
from benchmarks.paper.report import write_results
from benchmarks.paper.results import Results
from benchmarks.paper.run import _known, locked
from tests.benchmarks.made_results import Json, both, cell, content, ended, metric, unlearned
from tests.benchmarks.tiny_bench import TINY

CALL = ["--tasks", "digits", "--methods", "multidelete", "--device", "cpu"]
ERRORS = pytest.CaptureFixture[str]


def _refused(capsys: ERRORS, arguments: list[str], known: Any = TINY) -> str:
    assert main(arguments, known=known) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    return str(sentence)


def _results() -> Json:
    runs = {"1": unlearned(both(70.0, 20.0)), "2": ended("diverged", "NaN")}
    return content([cell("a", "multidelete", "1"), cell("a", "neggrad", "2")], runs)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (["--families", "wat"], "digits has albef"),
        (["--methods", "forgetful"], "known are retrain, "),
        (["--tasks", "wat"], "known are digits, started, unknown, retrieval, telepathy"),
        (["--device", "wat"], "give one of auto, cpu"),
        (["--device", "cuda"], "give one of auto, cpu"),
        (["--forget", "none"], "a number of pairs or a percentage"),
        (
            ["--set", "dtd.steps=3"],
            "--set is of dtd, which --methods does not run; it runs multidel",
        ),
        (
            ["--first-seed", "2147483646"],
            "seeds below 2147483648 were expected, and 3 from 21474836",
        ),
        (["--set", "alpha=6"], "--set takes METHOD.NAME=VALUE, and 'alpha=6' came"),
        (["--set", "multidelete.alpha="], "--set takes METHOD.NAME=VALUE"),
        (["--set", "forgetful.alpha=6"], "--set forgetful: the method is unknown; known are dtd, "),
        (
            ["--set", "multidelete.alfa=6"],
            "--set multidelete: alfa: Extra inputs are not permitted; ",
        ),
        (
            ["--set", "multidelete.alpha=-1"],
            "--set multidelete: alpha: Input should be greater than",
        ),
        (["--data", "/nowhere"], "it is not in /nowhere"),
        (["--reuse", "/nowhere"], "/nowhere is none: No such file or directory"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_written(
    changed: list[str],
    reason: str,
    data_sets: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: ERRORS,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = tmp_path / "out"
    call = [*CALL, "--data", str(data_sets), "--out", str(out), *changed]
    assert reason in _refused(capsys, call)
    assert not out.exists()


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("--seeds", "x", "a whole number above 0 was expected, and 'x' came"),
        ("--first-seed", "-1", "a whole number from 0 on was expected, and '-1' came"),
        ("--jobs", "0", "a whole number above 0 was expected, and '0' came"),
        ("--references", "3", "0 or at least 4 was expected, and '3' came"),
    ],
)
def test_an_option_that_is_none_says_what_was_expected(
    option: str, value: str, reason: str, tmp_path: Path, capsys: ERRORS
) -> None:
    with pytest.raises(SystemExit) as end:
        main([*CALL, "--out", str(tmp_path / "out"), option, value], known=TINY)
    assert end.value.code == 2
    assert f"argument {option}: {reason}" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_a_task_means_the_data_sets_of_it_that_are_there(tmp_path: Path) -> None:
    def asked(*arguments: str) -> list[str]:
        given = _parser(PRESETS).parse_args(["--out", "out", "--device", "cpu", *arguments])
        return list(_options(given, PRESETS).presets)

    assert asked("--tasks", "retrieval") == ["digits"]
    (tmp_path / "emoji_retrieval").mkdir()
    (tmp_path / "pgr").mkdir()
    there = ["--data", str(tmp_path), "--tasks"]
    assert asked(*there, "retrieval") == ["emoji_retrieval"]
    assert asked(*there, "graph_text", "retrieval", "pgr") == ["pgr", "emoji_retrieval"]
    with pytest.raises(BenchmarkError, match=r"nlvr is the task of emoji_pairs, and none is in "):
        asked(*there, "nlvr")


BROKEN = {
    "truncated": b'{"format": 1, "cells": [',
    "not UTF-8": b"\xff\xfe{}",
    "an empty object": b"{}",
    "a list": b"[]",
    "of another format": b'{"format": 99}',
    "without keys": b'{"format": 1}',
}


@pytest.mark.parametrize("option", ["--report", "--reuse"])
@pytest.mark.parametrize("kind", [*BROKEN, "missing", "a folder"])
def test_a_file_that_is_no_results_is_refused_in_a_sentence(
    option: str, kind: str, data_sets: Path, tmp_path: Path, capsys: ERRORS
) -> None:
    file, out = tmp_path / "results.json", tmp_path / "out"
    if kind == "a folder":
        file.mkdir()
    elif kind in BROKEN:
        file.write_bytes(BROKEN[kind])
    call = [*CALL, "--data", str(data_sets), "--out", str(out), option, str(file)]
    assert f"was expected, and {file} is none: " in _refused(capsys, call)
    assert not out.exists()


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (["options", "amounts"], "options.amounts"),
        (["data", "a"], "all of it"),
        (["cells", 0, "run_id"], "cells.0.run_id"),
        (["runs", "1", "metrics", 0, "value"], "runs.1.metrics.0.value"),
        (["runs", "1", "provenance", "machine", "cores"], "runs.1.provenance.machine.cores"),
        (["runs", "2", "spec"], "runs.2.spec"),
    ],
)
def test_a_key_that_tables_need_is_named_where_it_is_missing(
    path: list[Any], place: str, tmp_path: Path
) -> None:
    made = _results()
    write_results(made, tmp_path)
    assert Results.read(tmp_path / "results.json").content == made
    holder: Any = made
    for key in path[:-1]:
        holder = holder[key]
    del holder[path[-1]]
    write_results(made, tmp_path)
    with pytest.raises(BenchmarkError, match=rf"is none: {place}: "):
        Results.read(tmp_path / "results.json")


def test_a_run_of_other_results_that_the_engine_cannot_read_is_refused() -> None:
    good = unlearned([metric("d_f", 20.0, "forget")])
    assert _known(good) is not None
    with pytest.raises(BenchmarkError, match=r"--reuse names cannot be taken: metrics\.0\.n: "):
        _known({**good, "metrics": [{**good["metrics"][0], "n": -1}]})


def test_a_results_file_without_the_runs_of_its_cells_is_shown_with_nothing_measured(
    tmp_path: Path,
) -> None:
    pytest.importorskip("matplotlib", reason="plots need the extra `bench`")
    write_results({**_results(), "runs": {}}, tmp_path)
    out = tmp_path / "report"
    assert main(["--report", str(tmp_path / "results.json"), "--out", str(out)]) == 0
    tables = (out / "tables.md").read_text()
    assert "| MultiDelete | - | - | - | - |" in tables
    assert "N/A" not in tables
    rows = "MultiDelete (10% deleted, seed 0), NegGrad (10% deleted, seed 0)"
    assert f"A: {rows}: missing: its run is not in results.json" in tables
    assert "0: `1` (missing)" in (out / "runs.md").read_text()


@pytest.mark.parametrize("place", ["file", "file/below"])
@pytest.mark.parametrize("report", [True, False])
def test_an_out_that_can_be_no_folder_is_refused(
    place: str, report: bool, data_sets: Path, tmp_path: Path, capsys: ERRORS
) -> None:
    (tmp_path / "file").write_text("mine")
    call = [*CALL, "--data", str(data_sets), "--out", str(tmp_path / place)]
    if report:
        write_results(_results(), tmp_path)
        call += ["--report", str(tmp_path / "results.json")]
    assert "--out needs a folder" in _refused(capsys, call)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("resume", [[], ["--resume"]])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("results.json", '{"accuracy": 1}'),
        ("results.json", "no JSON"),
        ("runs/first/log.txt", "theirs"),
        ("runs", "a file"),
        ("lock/held", "a folder"),
        ("notes.txt", "theirs"),
    ],
)
def test_a_folder_of_something_else_is_refused_and_left_as_it_is(
    name: str, text: str, resume: list[str], data_sets: Path, tmp_path: Path, capsys: ERRORS
) -> None:
    out = tmp_path / "out"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text(text)
    before = sorted(out.rglob("*"))
    call = [*CALL, "--data", str(data_sets), "--out", str(out), *resume]
    sentence = _refused(capsys, call)
    first = Path(name).parts[0]
    assert f"{out} is no folder of this benchmark, which did not make {first}" in sentence
    assert sorted(out.rglob("*")) == before
    assert (out / name).read_text() == text


def test_a_foreign_file_is_found_in_a_folder_that_the_benchmark_worked_in(
    data_sets: Path, tmp_path: Path, capsys: ERRORS
) -> None:
    with locked(tmp_path):
        pass
    (tmp_path / "results.json").write_text("{}")
    call = [*CALL, "--data", str(data_sets), "--out", str(tmp_path), "--resume"]
    assert "did not make results.json" in _refused(capsys, call)


def test_results_of_an_earlier_benchmark_are_not_written_over(
    data_sets: Path, tmp_path: Path, capsys: ERRORS
) -> None:
    write_results(_results(), tmp_path)
    before = (tmp_path / "results.json").read_bytes()
    call = [*CALL, "--data", str(data_sets), "--out", str(tmp_path)]
    assert "go on with --resume, or name another folder" in _refused(capsys, call)
    assert (tmp_path / "results.json").read_bytes() == before


def test_a_folder_without_a_data_set_says_which_were_looked_for(
    tmp_path: Path, capsys: ERRORS
) -> None:
    call = ["--data", str(tmp_path), "--out", str(tmp_path / "out")]
    sentence = _refused(capsys, call, known=PRESETS)
    assert f"no data set was found in {tmp_path}; looked for emoji_retrieval, " in sentence
    assert "emoji_reasoning/entailment.jsonl" in sentence
    assert sentence.endswith("pgr")
    assert not (tmp_path / "out").exists()


def test_by_default_the_data_sets_are_those_that_are_there(tmp_path: Path, capsys: ERRORS) -> None:
    (tmp_path / "pgr").mkdir()
    given = _parser(PRESETS).parse_args(["--data", str(tmp_path), "--out", "out"])
    assert _options(given, PRESETS).presets == ["pgr"]
    said = capsys.readouterr().err
    assert f"not in {tmp_path} and left out: emoji_retrieval, emoji_entailment" in said


def test_a_task_that_needs_files_asks_for_their_folder(tmp_path: Path, capsys: ERRORS) -> None:
    call = ["--tasks", "pgr", "--device", "cpu", "--out", str(tmp_path / "out")]
    assert "none was named: give --data" in _refused(capsys, call, known=PRESETS)
    assert not (tmp_path / "out").exists()


def test_what_is_named_twice_is_run_once(tmp_path: Path) -> None:
    words = ["--tasks", "digits", "digits", "--families", "albef", "albef"]
    words += ["--parts", "main", "main", "--forget", "10", "--forget", "10"]
    given = _parser(TINY).parse_args([*words, "--out", str(tmp_path)])
    options = _options(given, TINY)
    assert (options.presets, options.families, options.parts) == (["digits"], ["albef"], ["main"])
    assert [amount.text for amount in options.amounts] == ["10"]


def test_the_committed_results_can_be_read() -> None:
    folder = Path(__file__).parents[2] / "benchmarks" / "results"
    found = [Results.read(file) for file in folder.glob("*/results.json")]
    assert found
    for results in found:
        assert all(results.run(one) for one in results.cells if one["run_id"] is not None)
