"""Whole runs of every image family on every task that it can do: train, forget, measure, reload."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine import DataSpec, RunSpec, load_checkpoint, run
from engine.audit import find
from engine.data.digits import write_digits
from engine.families import families
from engine.tasks import tasks

LABELS = {"visual_entailment": 3, "nlvr": 2}
CASES = [
    (family, task)
    for family in families
    for task in tasks
    if families.get(family).modality == "image"
    and tasks.get(task).refusal(families.get(family)) is None
]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("digits") / "digits"
    write_digits(root, pairs=40, seed=3)
    return root


def manifest(digits: Path, task: str, path: Path) -> DataSpec:
    """The manifest of the digits with what the task needs: labels, a second image."""
    lines = (digits / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines]
    images = [row["image"] for row in rows]
    for at, row in enumerate(rows):
        if task in LABELS:
            row["label"] = at % LABELS[task]
        if task == "nlvr":
            row["image"] = [row["image"], images[at - 1]]
            del row["item_id"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return DataSpec(manifest=path, root=digits)


@pytest.mark.parametrize(("family", "task"), CASES)
def test_a_family_is_trained_forgets_and_is_measured(
    family: str, task: str, digits: Path, tmp_path: Path
) -> None:
    data = manifest(digits, task, tmp_path / "manifest.jsonl")
    given: dict[str, Any] = {
        "data": data,
        "family": family,
        "task": task,
        "config": families.get(family).tiny().model_dump(),
        "training": {"epochs": 1, "batch_size": 8},
    }
    original = run(RunSpec(action="train", **given), tmp_path / "original")
    rows = [json.loads(line) for line in data.manifest.read_text().splitlines()]
    asked = {
        "checkpoint": original.checkpoint,
        "method": "multidelete",
        "update": "fusion",
        "params": {"epochs": 1, "least_steps": 2, "least_retained": 4, "draws": 2},
        "forget": {"r": [row["id"] for row in rows if row["split"] == "train"][:4]},
    }
    result = run(RunSpec(action="unlearn", **given, **asked), tmp_path / "after")
    d_f = find(result.metrics, "d_f", "after", "forget")
    assert d_f is not None
    assert d_f.value is not None
    assert original.checkpoint is not None
    assert result.checkpoint is not None
    before, after = (
        load_checkpoint(place).model for place in (original.checkpoint, result.checkpoint)
    )
    weights = dict(before.named_parameters())
    moved = {n for n, weight in after.named_parameters() if not weight.equal(weights[n])}
    assert moved
    assert {after.part_of(name) for name in moved} <= {"fusion", "head"}
    assert after.config == before.config
