"""Two processes do what one does: the same gradients, weights and metrics, within rounding."""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from engine import DataSpec, RunResult, RunSpec, load_checkpoint, load_dataset, run
from engine.audit import find
from engine.data.digits import write_digits
from engine.errors import InvalidSpec
from engine.families import families
from engine.processes import count, from_main, is_main, joined

SCRIPT = Path(__file__).with_name("together.py")
ROOT = Path(__file__).parents[2]
TASKS = {"albef": "retrieval", "gcn_bert": "graph_text"}
# Several steps an epoch: in the first, nothing is retained yet and all rows pull the same way.
SHORT = {"epochs": 2, "least_steps": 6, "least_retained": 9, "batch_size": 2}
LIMIT = 240
"""Seconds that processes may take on a machine that is busy with other things."""


@dataclass
class Done:
    """What one process and what two of them made of the same specifications."""

    folder: Path
    specs: dict[str, RunSpec]
    alone: dict[str, RunResult]
    told: list[dict[str, Any]]

    def checkpoint(self, name: str) -> Path:
        return self.folder / f"{name}-0" / "checkpoint"

    def result(self, name: str) -> RunResult:
        return RunResult.model_validate_json((self.folder / f"{name}-0/result.json").read_bytes())


# Each finds a free port by itself. By accelerate, `--cpu` starts several processes through MPI alone;
# `--multi_gpu` starts as many as it is told, and the specification says where they compute.
ACCELERATE = "--multi_gpu --num_machines 1 --mixed_precision no --dynamo_backend no"
LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
    "accelerate": [
        *("accelerate.commands.launch", *ACCELERATE.split()),
        *("--num_processes", "2", "--main_process_port", "0"),
    ],
}


def launch(*command: str, by: str = "torchrun", home: Path | None = None) -> str:
    """Run a Python command in two processes and return what they printed.

    ``home`` is where accelerate looks for a configuration, which could ask for anything.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [sys.executable, "-m", *LAUNCHERS[by], *command],
        env=environment if home is None else {**environment, "HF_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, graph_files: DataSpec) -> Done:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("together")
    write_digits(folder / "digits", pairs=80, seed=2)
    digits = folder / "digits"
    data = {
        "albef": DataSpec(manifest=digits / "manifest.jsonl", root=digits),
        "gcn_bert": graph_files,
    }
    specs, alone = {}, {}
    for family, task in TASKS.items():
        common = {"data": data[family], "family": family, "task": task}
        specs[f"{family} train"] = RunSpec(
            action="train",
            config=families.get(family).tiny().model_dump(mode="json"),
            training={"epochs": 2, "batch_size": 15},
            **common,
        )
        alone[f"{family} train"] = run(specs[f"{family} train"], folder / f"{family}-alone")
        specs[f"{family} unlearn"] = RunSpec(
            action="unlearn",
            checkpoint=folder / f"{family}-alone" / "checkpoint",
            method="multidelete",
            params=SHORT,
            forget={"a": [pair.id for pair in load_dataset(data[family]).split("train")][:5]},
            **common,
        )
        alone[f"{family} unlearn"] = run(specs[f"{family} unlearn"], folder / f"{family}-forgot")
    specs["again"] = specs["albef unlearn"]
    given = {name: spec.model_dump(mode="json") for name, spec in specs.items()}
    (folder / "specs.json").write_text(json.dumps(given), encoding="utf-8")
    launch(str(SCRIPT), str(folder))
    told = [json.loads((folder / f"told-{rank}.json").read_bytes()) for rank in range(2)]
    return Done(folder, specs, alone, told)


WEIGHTS = "model.safetensors"
OF_THE_MACHINE = {"method_seconds", "peak_memory_bytes"}
NAMES = [f"{family} {action}" for family in TASKS for action in ("train", "unlearn")]


@pytest.mark.parametrize("family", TASKS)
def test_a_batch_of_uneven_shares_has_the_loss_and_gradient_of_one_process(
    done: Done, family: str
) -> None:
    own: Callable[..., dict[str, torch.Tensor]] = runpy.run_path(str(SCRIPT))["gradients"]
    expected = own(done.specs[f"{family} train"])
    for rank in range(2):
        found = torch.load(done.folder / f"gradients-{rank}.pt")[family]
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            # Single precision, of sums in another order; largest entries are near 1.
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_come_to_the_weights_of_one(done: Done, name: str) -> None:
    _check_weights(done, name, done.checkpoint(name))


def _check_weights(done: Done, name: str, checkpoint: Path) -> None:
    alone = done.alone[name].checkpoint
    assert alone is not None
    expected = load_file(alone / WEIGHTS)
    found = load_file(checkpoint / WEIGHTS)
    before = _start(done.specs[name])
    assert found.keys() == expected.keys()
    moved = _length({key: w - before[key] for key, w in expected.items()})
    apart = _length({key: w - found[key] for key, w in expected.items()})
    # Adam turns rounding into steps where a gradient is nothing but rounding, so that single weights
    # may differ. All together are below 1e-3 of their way apart, and 0.2 with gradients of shares.
    assert moved > 0
    assert apart < 1e-2 * moved


def _start(spec: RunSpec) -> dict[str, torch.Tensor]:
    """Return the weights that a run starts from."""
    if spec.checkpoint is not None:
        return load_file(spec.checkpoint / WEIGHTS)
    kind = families.get(spec.family)
    return kind.build(kind.tiny(), load_dataset(spec.data), spec.seed).state_dict()


def _length(weights: dict[str, torch.Tensor]) -> float:
    return sum(float(w.double().square().sum()) for w in weights.values()) ** 0.5


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_measure_what_one_does(done: Done, name: str) -> None:
    _check_metrics(done, name, done.result(name))


def _check_metrics(done: Done, name: str, result: RunResult) -> None:
    assert len(result.metrics) == len(done.alone[name].metrics)
    for expected in done.alone[name].metrics:
        found = find(result.metrics, expected.name, expected.moment, expected.subset)
        assert found is not None
        assert (found.n, found.unavailable) == (expected.n, expected.unavailable)
        if expected.value is not None and expected.name not in OF_THE_MACHINE:
            # Ranks of some ten pairs: equal unless two scores are nearer than rounding.
            assert found.value == pytest.approx(expected.value, rel=0.02, abs=0.02), found.name


@pytest.mark.parametrize("name", NAMES)
def test_the_checkpoint_has_the_form_of_any_other(done: Done, name: str) -> None:
    alone = done.alone[name].checkpoint
    assert alone is not None
    found = load_checkpoint(done.checkpoint(name))
    assert found.card == load_checkpoint(alone).card
    assert _files(done.checkpoint(name)) == _files(alone)
    assert found.digest.checkpoint_sha256 == done.result(name).checkpoint_sha256
    assert done.result(name).environment["processes"] == "2"
    assert done.alone[name].environment["processes"] == "1"


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_the_same_run_gives_the_same_bits_again_and_after_an_interruption(done: Done) -> None:
    first, again = done.result("albef unlearn"), done.result("again")
    assert again.weights_sha256 == first.weights_sha256
    trained, resumed = done.result("albef train"), done.result("resumed")
    assert resumed.weights_sha256 == trained.weights_sha256


def test_the_main_process_alone_writes(done: Done) -> None:
    for name in (*NAMES, "resumed"):
        assert done.told[0][name] == done.told[1][name] == "done"
        assert (done.folder / f"{name}-0").is_dir()
        assert not (done.folder / f"{name}-1").exists()


def test_all_stop_where_one_is_asked_to(done: Done) -> None:
    assert done.told[0]["stopped"] == "cancelled: another process of this run was asked to end"
    assert done.told[1]["stopped"] == "cancelled: this process was asked"
    assert not (done.folder / "stopped" / "result.json").exists()


def test_a_failure_of_one_ends_the_others(done: Done) -> None:
    assert done.told[1]["end"] == "failed"
    assert done.told[0]["left alone"].startswith("process_lost")
    assert not (done.folder / "lost" / "result.json").exists()


def test_dropout_differs_from_share_to_share_and_leaves_the_common_stream(done: Done) -> None:
    first, second = (told["dropped"] for told in done.told)
    assert first == second
    for values in first["passes"]:
        assert len(set(values)) == len(values)  # four rows of one process, three of the other
    assert first["passes"][0] != first["passes"][1]
    assert first["next"] == float(torch.rand((), generator=torch.Generator().manual_seed(5)))


def test_a_model_that_normalises_over_the_batch_is_not_divided(done: Done) -> None:
    assert all(told["undivided"] for told in done.told)


@pytest.mark.parametrize("by", LAUNCHERS)
def test_a_launcher_starts_the_command_of_a_run(done: Done, tmp_path: Path, by: str) -> None:
    name, out, spec = "gcn_bert train", tmp_path / "out", tmp_path / "spec.json"
    spec.write_text(done.specs[name].model_dump_json(), encoding="utf-8")
    printed = launch("-m", "engine", str(spec), str(out), by=by, home=tmp_path)
    told = [json.loads(line) for line in printed.splitlines()]
    assert [list(line) for line in told].count(["result"]) == 1
    assert told[-1]["result"] == json.loads((out / "result.json").read_bytes())
    result = RunResult.model_validate(told[-1]["result"])
    assert result.environment["processes"] == "2"
    assert result.weights_sha256 == done.result(name).weights_sha256
    _check_weights(done, name, out / "checkpoint")
    _check_metrics(done, name, result)


def test_without_a_launcher_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined("cpu"):
        assert (count(), is_main(), from_main(0.1)) == (1, True, 0.1)


@pytest.mark.parametrize(
    ("device", "said"), [("cpu", "MASTER_ADDR"), ("cuda:1", "say cuda"), ("cuda", "there are 0")]
)
def test_an_environment_that_fits_no_launcher_is_refused(
    monkeypatch: pytest.MonkeyPatch, device: str, said: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSpec, match=said), joined(device):
        pass
