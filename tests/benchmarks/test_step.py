"""The plain loop and the engine have the same loss; the clock runs around the engine's own loop."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.figures import BenchmarkError
from benchmarks.step import scaling
from benchmarks.step.__main__ import main
from benchmarks.step.measure import Seconds, Timings, compare, operations, race, ratios
from benchmarks.step.world import SETTINGS, SIZES, Size, make_world
from engine.catalogue import catalogue
from engine.methods.multidelete import MultiDelete
from engine.spec import Update

SMALL = Size(batch=4, steps=2, pixels=32, words=6)
COMBINATIONS = [(entry["family"], entry["task"]) for entry in catalogue()["combinations"]]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_every_family_is_compared() -> None:
    assert {family for family, _ in COMBINATIONS} >= {"albef", "gcn_bert"}


@pytest.mark.parametrize("update", ["all", "fusion"])
@pytest.mark.parametrize(("family", "task"), COMBINATIONS)
def test_the_engine_has_the_plain_loops_loss(family: str, task: str, update: Update) -> None:
    params = {"alpha": 2.0, "beta": 3.0, "gamma": 0.5, "mismatched": 0.7, "draws": 3}
    terms = compare(make_world(family, task, SMALL, params, update=update, earlier=3))
    assert terms.plain.keys() == terms.engine.keys()
    assert len(terms.plain) == (3 if update == "all" else 2)
    assert all(value > 1e-4 for value in terms.plain.values()), "a term that is 0 proves nothing"
    assert terms.difference < 1e-5


@pytest.mark.parametrize("settings", list(SETTINGS))
def test_the_losses_agree_with_the_papers_settings_and_with_the_defaults(settings: str) -> None:
    assert compare(make_world("albef", "retrieval", SMALL, SETTINGS[settings])).difference < 1e-5


def test_a_loss_that_is_another_one_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = MultiDelete.loss
    world = make_world("albef", "retrieval", SMALL, SETTINGS["paper"])

    def wrong(self: MultiDelete, batch: Any) -> dict[str, torch.Tensor]:
        return {name: 1.001 * term for name, term in right(self, batch).items()}

    monkeypatch.setattr(MultiDelete, "loss", wrong)
    assert compare(world).difference > 1e-4


def test_both_loops_take_the_same_steps_and_each_is_timed() -> None:
    timings = race(make_world("albef", "retrieval", SMALL, SETTINGS["paper"]), epochs=2)
    assert [len(epoch) for epoch in timings.plain] == [2, 2, 2]
    assert [len(epoch) for epoch in timings.engine] == [2, 2, 2]
    assert timings.pairs == 8
    assert min(timings.steps("plain") + timings.steps("engine")) > 0


def test_ratios_leave_the_first_epoch_out() -> None:
    first, slow, fast = Seconds(9.0, 9.0), Seconds(2.0, 3.0), Seconds(1.0, 1.0)
    cuts = [fast, Seconds(0.5, 0.5)]
    timings = Timings([[first] * 2, [slow, slow]], [[fast] * 2, [fast, Seconds(2.0, 1.5)]], cuts, 4)
    assert ratios(timings, epochs=False) == [2.0, 1.0]
    assert ratios(timings, epochs=True) == [pytest.approx(4 / 3.5)]  # with the cut into batches
    assert ratios(timings, epochs=False, kind="cpu") == [3.0, 2.0]
    assert timings.epochs("plain", start=0) == [18.0, 4.0]


def test_twice_the_batch_takes_twice_the_operations() -> None:
    def count(batch: int) -> float:
        size = Size(batch=batch, steps=1, pixels=32, words=6)
        return operations(make_world("albef", "retrieval", size, SETTINGS["paper"]))

    one, two = count(4), count(8)
    assert one > 1e6
    assert 1.6 < two / one < 2.4  # texts are padded to the longest one of the batch


def test_the_published_sizes_are_those_of_albef_only() -> None:
    with pytest.raises(BenchmarkError, match="gcn_bert"):
        make_world("gcn_bert", "graph_text", SIZES["base"], {})


def test_the_command_prints_every_figure_and_writes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "figures.json"
    options = ["--settings", "paper", "--batch", "4", "--steps", "1", "--rounds", "1"]
    assert main([*options, "--task", "retrieval", "--no-memory", "--json", str(out)]) == 0
    names = {figure["name"] for figure in json.loads(out.read_text())["figures"]}
    assert {"paper: loss in fp32", "paper, -F: plain beside engine, epoch"} <= names
    printed = capsys.readouterr().out
    assert "commit:" in printed
    assert "device:" in printed


def test_scaling_grows_one_thing_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = []

    def execute(spec: Any, folder: Path) -> None:
        specs.append((spec, folder))

    monkeypatch.setattr(scaling, "execute", execute)
    bench = scaling._Scaling(tmp_path, scaling.Jobs(small=20, deleted=3, rounds=1), 1, "cpu")
    bench.round(0)
    counts = [_counts(spec.data.manifest) for spec, _ in specs[1:]]
    assert [found["train"] for found in counts] == [20, 200, 200]
    assert all(one["test"] == other["test"] for one, other in pairwise(counts))
    assert [len(spec.forget["request"]) for spec, _ in specs[1:]] == [3, 3, 15]


def _counts(manifest: Path) -> dict[str, int]:
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    return {split: sum(row["split"] == split for row in rows) for split in ("train", "val", "test")}
