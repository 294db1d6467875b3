"""The command of a run, in processes of its own."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

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


def start(tmp_path: Path, spec: dict[str, Any], name: str = "out") -> subprocess.Popen[str]:
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(spec), encoding="utf-8")
    command = [sys.executable, "-m", "engine", str(path), str(tmp_path / name)]
    return subprocess.Popen(
        [*command, "--state", str(tmp_path / "state")], stdout=subprocess.PIPE, text=True
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
    long = {**spec, "training": {"epochs": 400, "batch_size": 16, "patience": 400}}
    process = start(tmp_path, long)
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["progress"]["phase"] == "train":
            break
    time.sleep(0.5)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode != 0
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    short = {**spec, "training": {"epochs": 4, "batch_size": 16}}
    again, other = start(tmp_path, short), None
    told = lines(again)
    other = start(tmp_path, short, "other")
    assert lines(other)[-1]["result"]["weights_sha256"] == told[-1]["result"]["weights_sha256"]
