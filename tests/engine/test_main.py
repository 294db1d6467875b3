"""The command of a run, in processes of its own."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine import RunSpec, run
from engine.data.digits import write_digits
from engine.families import families


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("main") / "digits"
    write_digits(root, pairs=60, seed=4)
    return {
        "action": "train",
        "data": {"manifest": str(root / "manifest.jsonl"), "root": str(root)},
        "family": "albef",
        "task": "retrieval",
        "config": families.get("albef").tiny().model_dump(mode="json"),
        "training": {"epochs": 2, "batch_size": 16},
    }


def start(tmp_path: Path, spec: dict[str, Any]) -> subprocess.Popen[str]:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec), encoding="utf-8")
    command = [sys.executable, "-m", "engine", str(path), str(tmp_path / "out")]
    return subprocess.Popen(
        [*command, "--state", str(tmp_path / "state"), "--save-every", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )


def lines(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    out, _ = process.communicate(timeout=240)
    return [json.loads(line) for line in out.splitlines()]


def test_a_run_is_told_in_json_lines(tmp_path: Path, spec: dict[str, Any]) -> None:
    process = start(tmp_path, spec)
    told = lines(process)
    assert process.returncode == 0
    assert told[0]["progress"]["phase"] == "load"
    written = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    assert told[-1]["result"] == written


def test_an_error_is_told_with_its_code(tmp_path: Path, spec: dict[str, Any]) -> None:
    process = start(tmp_path, {**spec, "forget": {"a": ["digits-00000"]}})
    told = lines(process)
    assert process.returncode == 1
    assert told[-1]["error"]["code"] == "invalid_spec"
    assert "a training forgets nothing" in told[-1]["error"]["message"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_goes_on_in_a_new_process_to_the_same_bytes(
    tmp_path: Path, spec: dict[str, Any], number: signal.Signals
) -> None:
    long = {**spec, "training": {"epochs": 400, "batch_size": 16}}
    process = start(tmp_path, long)
    _wait_for_training(process)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert (tmp_path / "state" / "train.safetensors").is_file()
    assert list((tmp_path / "out").iterdir()) == []
    resumed = lines(start(tmp_path, long))
    whole = run(RunSpec.model_validate(long), tmp_path / "whole")
    assert resumed[-1]["result"]["weights_sha256"] == whole.weights_sha256
    assert _first_step(resumed) > 3  # steps of an epoch


def _wait_for_training(process: subprocess.Popen[str]) -> None:
    """Return when at least one epoch is complete and the run is not."""
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)["progress"]
        if event["phase"] == "train" and event["step"] > 6:
            return


def _first_step(told: list[dict[str, Any]]) -> int:
    events = [line["progress"] for line in told if "progress" in line]
    return next(int(event["step"]) for event in events if event["phase"] == "train")
