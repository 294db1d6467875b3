"""The benchmark as a whole on tiny data: killed in the middle of a run, gone on with, refused."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.figures import BenchmarkError
from benchmarks.paper.__main__ import main
from benchmarks.paper.run import RUNS, locked
from tests.benchmarks.tiny_bench import TINY

DRIVER = Path(__file__).with_name("tiny_bench.py")
METHODS = [
    "--methods",
    "multidelete",
    "retrain-F",
    "--parts",
    "main",
    "--tasks",
    "digits",
    "unknown",
]
OPTIONS = [*METHODS, "--seeds", "1", "--forget", "10", "--device", "cpu"]


def _wait_for(folder: Path, pattern: str, count: int, process: subprocess.Popen[str]) -> list[Path]:
    end = time.monotonic() + 240
    while len(found := sorted(folder.glob(pattern))) < count:
        assert process.poll() is None, "the benchmark ended too early"
        assert time.monotonic() < end, f"{pattern} did not appear"
        time.sleep(0.05)
    return found


def test_a_killed_benchmark_goes_on_and_does_nothing_twice(
    data_sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="plots need the extra `bench`")
    out = tmp_path / "out"
    arguments = ["--data", str(data_sets), "--out", str(out), *OPTIONS]
    command = [sys.executable, str(DRIVER), *arguments]
    process = subprocess.Popen(command, text=True, stderr=subprocess.DEVNULL)
    _wait_for(out / RUNS, "*/result.json", 1, process)
    _wait_for(out / RUNS, "*/spec.json", 2, process)  # the unlearning is at work
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert children
    assert not psutil.wait_procs(children, timeout=30)[1], "a run outlived the benchmark"

    (done,) = (out / RUNS).glob("*/result.json")
    first = done.stat().st_mtime_ns
    assert len(list((out / RUNS).iterdir())) == 2
    assert not (out / "results.json").exists()

    assert main(arguments, known=TINY) == 2
    assert "--resume" in capsys.readouterr().err

    assert main([*arguments, "--resume"], known=TINY) == 0
    assert done.stat().st_mtime_ns == first, "the original was trained again"
    assert "2 runs, 1 of them done before; 3 cells are not applicable" in capsys.readouterr().err
    results = json.loads((out / "results.json").read_text())
    assert {run["status"] for run in results["runs"].values()} == {"done"}
    _check_content(results, out)

    assert main([*arguments, "--resume"], known=TINY) == 0
    assert "2 runs, 2 of them done before" in capsys.readouterr().err

    _reuse(arguments, out, tmp_path, capsys)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_benchmark_ends_its_runs_and_says_how_to_go_on(
    stop: signal.Signals, data_sets: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, str(DRIVER), "--data", str(data_sets), "--out", str(out), *OPTIONS]
    process = subprocess.Popen(
        command,
        text=True,
        stderr=subprocess.PIPE,
        # A background job of a shell ignores Ctrl-C, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    _wait_for(out / RUNS, "*/spec.json", 1, process)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(stop)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.rstrip().endswith("stopped; go on with the same command and --resume")
    assert not psutil.wait_procs(children, timeout=30)[1], "a run outlived the benchmark"
    # What is there is written even so: nothing is done, and the file says so.
    runs = json.loads((out / "results.json").read_text())["runs"]
    assert {run["status"] for run in runs.values()} == {"missing"}


def _reuse(
    arguments: list[str], out: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Elsewhere the committed results stand for the runs; a run that is new needs its original."""
    other = folder / "other"
    again = [str(other) if word == str(out) else word for word in arguments]
    assert main([*again, "--reuse", str(out / "results.json")], known=TINY) == 0
    assert "2 runs, 2 of them done before" in capsys.readouterr().err
    assert (other / "tables.md").read_bytes() == (out / "tables.md").read_bytes()

    more = [*again, "--reuse", str(out / "results.json"), "--resume", "--forget", "12"]
    assert main(more, known=TINY) == 0
    assert "3 runs, 1 of them done before" in capsys.readouterr().err
    assert main([*again, "--reuse", "nowhere.json", "--resume"], known=TINY) == 2
    assert "nowhere.json is none: No such file" in capsys.readouterr().err


def _check_content(results: dict[str, object], out: Path) -> None:
    text = json.dumps(results)
    manifest = (out / "data" / "digits" / "manifest.jsonl").read_text().splitlines()
    ids = [json.loads(line)["id"] for line in manifest]
    assert not [name for name in ids if f'"{name}"' in text], "ids of pairs are personal data"
    for run_id, run in results["runs"].items():  # type: ignore[attr-defined]
        assert run["data_sha256"] == results["data"]["digits"]["sha256"]  # type: ignore[index]
        assert run["provenance"]["commit"]
        assert run["cost"]["method_seconds"] > 0
        kept = (out / RUNS / run_id / "checkpoint").is_dir()
        assert kept == (run["spec"]["action"] == "train"), "only originals are started from"
        assert not (out / RUNS / run_id / "state").exists()
    first = (out / "runs.md").read_text().splitlines()[-1]
    assert first.startswith("| main | 10 | multidelete | Digits | 0: `"), first
    tables = (out / "tables.md").read_text()
    assert "| MultiDelete |" in tables
    assert (
        "Unknown: Retrain-F, MultiDelete: not applicable: the engine has no task telepathy"
        in tables
    )
    assert (out / "plots" / "d_f-d_test-digits-albef-10.svg").is_file()


def test_two_benchmarks_cannot_work_in_one_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.paper.run._LOCK_SECONDS", 0.1)
    with (
        locked(tmp_path),
        pytest.raises(BenchmarkError, match="another benchmark"),
        locked(tmp_path),
    ):
        pass
