"""The command of a run, in processes of its own."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine import RunResult, RunSpec, run
from engine.__main__ import _read
from engine.data.digits import write_digits
from engine.errors import InvalidSpec
from engine.families import families

ROOT = Path(__file__).parents[2]


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


def test_a_device_that_is_not_here_is_an_error_before_anything_is_made(
    tmp_path: Path, spec: dict[str, Any]
) -> None:
    process = start(tmp_path, {**spec, "device": "tpu"})
    (told,) = lines(process)
    assert process.returncode == 1
    assert told["error"]["code"] == "device_unavailable"
    assert "a device that torch can use here was expected, and 'tpu'" in told["error"]["message"]
    assert [place.name for place in tmp_path.iterdir()] == ["spec.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "Invalid JSON: EOF while parsing an object at line 1 column 1"),
        ("[]", "Input should be an object"),
        ("{}", "action: Field required; data: Field required; family: Field required; task: Field"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0"),
        ({"reference_models": 2}, "specification: reference_models is 2; give 0 or at least 4"),
        (
            {"sead": 1},
            "sead: Extra inputs are not permitted; known are action, data, family, task, ",
        ),
        (
            {"data": {"manifest": "a", "root": "b", "rood": "c"}},
            "data.rood: Extra inputs are not permitted; known in data are manifest, root",
        ),
    ],
)
def test_what_is_no_specification_is_told_fault_by_fault(
    tmp_path: Path, spec: dict[str, Any], content: str | dict[str, Any], message: str
) -> None:
    path = tmp_path / "spec.json"
    path.write_text(content if isinstance(content, str) else json.dumps({**spec, **content}))
    with pytest.raises(InvalidSpec) as caught:
        _read(path)
    told = str(caught.value)
    assert told.startswith(f"{path} is no run specification: ")
    assert message in told
    assert "\n" not in told
    assert "pydantic" not in told


def test_the_runs_of_the_page_can_be_made_as_they_stand(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    section = page.partition("## A run by itself\n")[2].partition("\n## ")[0]
    train, unlearn = re.findall(r"^```json\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    (tmp_path / "train.json").write_text(train, encoding="utf-8")
    (tmp_path / "unlearn.json").write_text(unlearn, encoding="utf-8")
    (commands,) = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    for command in commands.splitlines():
        python, *arguments = command.partition("#")[0].split()
        assert python == "python"
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, check=True, timeout=240
        )
    result = RunResult.model_validate_json((tmp_path / "unlearned" / "result.json").read_bytes())
    assert result.checkpoint is not None
    card = json.loads((tmp_path / result.checkpoint / "lethe.json").read_text(encoding="utf-8"))
    assert [(one["method"], one["pairs"]) for one in card["unlearning"]] == [("multidelete", 2)]


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
