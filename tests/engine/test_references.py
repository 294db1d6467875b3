"""Reference models on a data set whose labels are noise, so that learning is memorising."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from engine import (
    DataSpec,
    Metric,
    RunResult,
    RunSpec,
    load_checkpoint,
    run,
    save_checkpoint,
)
from engine.errors import Cancelled
from engine.families import families
from engine.references import LEAST_UNSEEN, choose_groups
from engine.spec import Progress

NODES = 30
TRAIN, COPIES, TEST = 100, 76, 100
GONE = 24
MODELS = 4


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> DataSpec:
    """Sentences with random labels; validation repeats training pairs, so it rewards memorising."""
    root = tmp_path_factory.mktemp("noise")
    (root / "graph").mkdir()
    random = np.random.default_rng(0)
    table = ["node\tid\ttext", *(f"{node}\tN{node}\tnode {node}" for node in range(NODES))]
    (root / "graph" / "nodes.tsv").write_text("\n".join(table) + "\n", encoding="utf-8")
    facts = [
        {
            "text": f"item {number} and {number * 7}",
            "label": int(random.integers(2)),
            "node": number,
        }
        for number in range(TRAIN + TEST)
    ]
    rows = [("train", fact) for fact in facts[:TRAIN]]
    rows += [("val", fact) for fact in facts[TRAIN - COPIES : TRAIN]]
    rows += [("test", fact) for fact in facts[TRAIN:]]
    lines = [
        json.dumps(
            {
                "id": f"n{row}",
                "graph": f"graph/subgraphs.npz::n{row}",
                "text": fact["text"],
                "label": fact["label"],
                "split": split,
            }
        )
        for row, (split, fact) in enumerate(rows)
    ]
    (root / "manifest.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    ends = np.array([[fact["node"] % NODES, (fact["node"] + 1) % NODES] for _, fact in rows])
    np.savez(
        root / "graph" / "subgraphs.npz",
        pair_id=np.array([f"n{row}" for row in range(len(rows))]),
        node_ptr=np.arange(0, 2 * len(rows) + 1, 2),
        node_idx=ends.ravel(),
        edge_ptr=np.arange(len(rows) + 1),
        edge_src=np.zeros(len(rows), dtype=np.int64),
        edge_dst=np.ones(len(rows), dtype=np.int64),
    )
    return DataSpec(manifest=root / "manifest.jsonl", root=root)


def _original(data: DataSpec, out: Path, epochs: int) -> Path:
    torch.set_num_threads(1)
    recipe = {"epochs": epochs, "batch_size": 50, "learning_rate": 1e-2}
    spec = RunSpec(
        action="train",
        data=data,
        family="gcn_bert",
        task="graph_text",
        config=families.get("gcn_bert").tiny().model_dump(mode="json"),
        training=recipe,
    )
    checkpoint = run(spec, out).checkpoint
    assert checkpoint is not None
    return checkpoint


def _unlearning(data: DataSpec, checkpoint: Path, **changes: object) -> RunSpec:
    given: dict[str, object] = {
        "action": "unlearn",
        "data": data,
        "family": "gcn_bert",
        "task": "graph_text",
        "checkpoint": checkpoint,
        "method": "multidelete",
        "params": {"epochs": 5, "least_steps": 5, "least_retained": 16},
        "forget": {"a": [f"n{row}" for row in range(GONE)]},
        "reference_models": MODELS,
    }
    return RunSpec.model_validate(given | changes)


@pytest.fixture(scope="module")
def attacked(
    noise: DataSpec, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunResult, list[Progress]]:
    """An unlearning of a model that knows its training pairs by heart, and its progress."""
    memorised = _original(noise, tmp_path_factory.mktemp("memorised"), epochs=80)
    events: list[Progress] = []
    spec = _unlearning(noise, memorised)
    with pytest.MonkeyPatch.context() as patch:
        # A fast machine is done with a reference before the next event is due.
        patch.setattr("engine.monitor.PROGRESS_SECONDS", 0.0)
        result = run(spec, tmp_path_factory.mktemp("attacked"), on_progress=events.append)
    return result, events


@pytest.fixture(scope="module")
def hasty(noise: DataSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was hardly trained, whose reference models cost nothing."""
    return _original(noise, tmp_path_factory.mktemp("hasty"), epochs=2)


def _found(result: RunResult, name: str) -> dict[tuple[str, str], Metric]:
    chosen = [metric for metric in result.metrics if metric.name == name]
    return {(metric.moment, metric.subset): metric for metric in chosen}


def test_the_attack_finds_what_an_overfitted_original_learned(
    attacked: tuple[RunResult, list[Progress]],
) -> None:
    found = _found(attacked[0], "ulira_auc")
    assert set(found) == {
        (moment, subset) for moment in ("before", "after") for subset in ("forget", "retained")
    }
    for subset in ("forget", "retained"):
        metric = found["before", subset]
        assert metric.value > 0.65
        assert metric.interval[0] > 0.5
        assert metric.details["on_references"]["value"] > 0.6
        assert metric.details["reference_models"] == MODELS
    assert (found["after", "forget"].n, found["after", "retained"].n) == (GONE, 38)


def test_rates_are_reported_beside_the_auc_with_the_reason_where_pairs_are_few(
    attacked: tuple[RunResult, list[Progress]],
) -> None:
    for name, needed in (("ulira_tpr_at_1pct_fpr", 100), ("ulira_tpr_at_0.1pct_fpr", 1000)):
        metric = _found(attacked[0], name)["after", "forget"]
        assert metric.unavailable == f"needs at least {needed} never seen pairs; {GONE} came"


def test_each_reference_model_has_phases_of_its_own(
    attacked: tuple[RunResult, list[Progress]],
) -> None:
    phases = list(dict.fromkeys(event.phase for event in attacked[1]))
    start = phases.index("evaluate_after") + 1
    names = [f"reference-{number}" for number in range(MODELS)]
    assert phases[start:] == [
        phase for name in names for phase in (name, f"{name}-unlearn") if phase in phases
    ] + ["save"]
    assert set(names) <= set(phases)


def test_references_are_no_part_of_the_cost_of_the_method(
    attacked: tuple[RunResult, list[Progress]],
) -> None:
    assert attacked[0].cost.steps == 5


class StopAt:
    """Cancels when a phase reports for the first time."""

    def __init__(self, phase: str) -> None:
        self.phase, self.seen = phase, False

    def listen(self, event: Progress) -> None:
        self.seen = self.seen or event.phase == self.phase

    def check(self) -> None:
        if self.seen:
            raise Cancelled("stopped by the test")


@pytest.mark.parametrize("method", ["multidelete", "retrain"])
def test_an_interrupted_run_keeps_the_references_that_are_done(
    noise: DataSpec,
    hasty: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    monkeypatch.setattr("engine.monitor.PROGRESS_SECONDS", 0.0)
    params = {"epochs": 2, "least_steps": 2} if method == "multidelete" else {}
    spec = _unlearning(noise, hasty, method=method, params=params)
    whole = run(spec, tmp_path / "whole")
    state, stop = tmp_path / "state", StopAt("reference-2")
    with pytest.raises(Cancelled):
        run(spec, tmp_path / "cut", state=state, control=stop, on_progress=stop.listen)
    assert sorted(path.name for path in state.glob("reference-*.json")) == [
        "reference-0.json",
        "reference-1.json",
    ]
    events: list[Progress] = []
    resumed = run(spec, tmp_path / "cut", state=state, on_progress=events.append)
    assert not {"reference-0", "reference-1"} & {event.phase for event in events}
    assert _found(resumed, "ulira_auc") == _found(whole, "ulira_auc")
    assert resumed.weights_sha256 == whole.weights_sha256
    assert not list(state.glob("reference-*/"))


def test_a_run_without_references_says_that_the_attack_was_not_made(
    noise: DataSpec, hasty: Path, tmp_path: Path
) -> None:
    spec = _unlearning(noise, hasty, reference_models=0, params={"epochs": 1, "least_steps": 1})
    found = _found(run(spec, tmp_path), "ulira_auc")
    assert set(found) == {("after", "forget")}
    assert "reference_models" in found["after", "forget"].unavailable


def test_a_model_without_a_recipe_has_no_references(
    noise: DataSpec, hasty: Path, tmp_path: Path
) -> None:
    loaded = load_checkpoint(hasty)
    card = {key: value for key, value in loaded.card.items() if key != "training"}
    save_checkpoint(loaded.model, tmp_path / "bare", card)
    params = {"epochs": 1, "least_steps": 1}
    spec = _unlearning(noise, tmp_path / "bare", params=params)
    found = _found(run(spec, tmp_path / "out"), "ulira_auc")
    assert "names no recipe" in found["after", "forget"].unavailable


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference_models": 3}, "give 0 or at least 4"),
        ({"reference_models": 257}, "less than or equal to 256"),
        ({"action": "evaluate"}, "the action is evaluate"),
    ],
)
def test_a_number_of_references_that_cannot_be_is_refused(
    noise: DataSpec, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        _unlearning(noise, Path("checkpoint"), **changes)


@dataclass(frozen=True)
class Pairs:
    """What `choose_groups` reads of an unlearning."""

    forget: torch.Tensor
    retain: torch.Tensor
    seed: int = 0


def _pairs(forget: int, retain: int, test: int) -> tuple[Pairs, torch.Tensor]:
    rows = torch.arange(forget + retain + test)
    return Pairs(rows[:forget], rows[forget : forget + retain]), rows[forget + retain :]


def test_half_of_the_references_learn_each_pair_and_groups_share_none() -> None:
    pairs, test = _pairs(forget=30, retain=100, test=90)
    groups = choose_groups(pairs, test, 8)
    assert list(groups) == ["forget", "retained"]
    rows = torch.cat([group.rows for group in groups.values()])
    assert len(rows.unique()) == len(rows) == 30 + 30 + 50 + 50
    for group in groups.values():
        assert (group.inside.sum(axis=0) == 4).all()
        assert 0.3 < group.inside[0].mean() < 0.7
        assert torch.isin(group.rows[~group.member], test).all()
        assert not torch.isin(group.rows[group.member], test).any()
    assert set(groups["forget"].rows[groups["forget"].member].tolist()) == set(range(30))


def test_few_deleted_pairs_are_compared_with_more_unseen_ones() -> None:
    groups = choose_groups(*_pairs(forget=1, retain=100, test=90), 4)
    assert (~groups["forget"].member).sum() == LEAST_UNSEEN


@pytest.mark.parametrize(("retain", "test"), [(100, 39), (39, 100)])
def test_too_few_pairs_have_no_groups_and_the_reason_says_how_many(retain: int, test: int) -> None:
    found = choose_groups(*_pairs(forget=9, retain=retain, test=test), 4)
    assert (
        found == f"needs at least 40 test pairs and as many retained ones; {test} and {retain} came"
    )
