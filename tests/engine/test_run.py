"""Whole runs on tiny data sets, from a folder as users have it to checkpoint and result."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from engine import DataSpec, RunResult, RunSpec, load_checkpoint, load_dataset, run
from engine.audit import find
from engine.data.convert import convert
from engine.data.digits import write_digits
from engine.errors import Cancelled, DataError, DeviceUnavailable, InvalidSpec, NotApplicable
from engine.families import families
from engine.levels import key
from engine.spec import Progress
from engine.training import FitReport
from engine.unlearning import Unlearning

TASKS = {"albef": "retrieval", "gcn_bert": "graph_text"}
SHORT = {"epochs": 3, "least_steps": 6, "least_retained": 8}
GENES, VERBS = 12, ("raises", "lowers", "causes", "spares")


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> DataSpec:
    root = tmp_path_factory.mktemp("run") / "digits"
    write_digits(root, pairs=80, seed=2)
    return DataSpec(manifest=root / "manifest.jsonl", root=root)


@pytest.fixture(scope="session")
def relations(tmp_path_factory: pytest.TempPathFactory) -> DataSpec:
    """60 gene-phenotype sentences with subgraphs, in the layout of PGR, converted to a manifest."""
    root = tmp_path_factory.mktemp("run") / "relations"
    (root / "graph").mkdir(parents=True)
    rows = [_relation(number) for number in range(60)]
    lines = [json.dumps(row) for row in rows]
    (root / "pairs.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    nodes = [
        f"{n}\tN{n}\t{'gene' if n < GENES else 'phenotype'}\tn{n}\tnode {n}" for n in range(24)
    ]
    table = "\n".join(["node\tid\ttype\tname\ttext", *nodes]) + "\n"
    (root / "graph" / "nodes.tsv").write_text(table, encoding="utf-8")
    np.savez(
        root / "graph" / "subgraphs_1hop.npz",
        pair_id=np.array([row["id"] for row in rows]),
        node_ptr=np.arange(0, 121, 2),
        node_idx=np.array(
            [[row["gene"]["node"], row["phenotype"]["node"]] for row in rows]
        ).ravel(),
        edge_ptr=np.arange(61),
        edge_src=np.zeros(60, dtype=np.int64),
        edge_dst=np.ones(60, dtype=np.int64),
    )
    manifest = root / "manifest.jsonl"
    report = convert(root, manifest)
    assert (report.format, report.task, report.pairs) == ("pgr", "graph_text", 60)
    return DataSpec(manifest=manifest, root=root)


def _relation(number: int) -> dict[str, Any]:
    gene, phenotype = number % GENES, GENES + number * 5 % GENES
    verb = VERBS[number % 4]
    text = f"G{gene} {verb} P{phenotype} in case {number}"
    at = text.index("P")
    return {
        "id": f"r{number}",
        "doc_id": f"d{number}",
        "split": "train" if number < 40 else "dev" if number < 50 else "test",
        "text": text,
        "gene": {"id": f"N{gene}", "mention": f"G{gene}", "start": 0, "end": 1, "node": gene},
        "phenotype": {
            "id": f"N{phenotype}",
            "name": f"n{phenotype}",
            "mention": f"P{phenotype}",
            "start": at,
            "end": at + 1,
            "node": phenotype,
        },
        "label": int(verb in VERBS[:2]),
    }


@pytest.fixture
def spec_for(digits: DataSpec, relations: DataSpec) -> Callable[..., RunSpec]:
    data = {"albef": digits, "gcn_bert": relations}

    def make(family: str, action: str = "train", **changes: object) -> RunSpec:
        given: dict[str, object] = {
            "action": action,
            "data": data[family],
            "family": family,
            "task": TASKS[family],
        }
        if action == "train":
            given |= {"config": families.get(family).tiny().model_dump(mode="json")}
            given |= {"training": {"epochs": 3, "batch_size": 16}}
        return RunSpec.model_validate(given | changes)

    return make


@pytest.fixture(scope="session")
def originals() -> dict[str, Path]:
    """Checkpoints of trained originals by family, filled by the first test that needs one."""
    return {}


@pytest.fixture
def original(
    originals: dict[str, Path],
    spec_for: Callable[..., RunSpec],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], Path]:
    def get(family: str) -> Path:
        if family not in originals:
            result = run(spec_for(family), tmp_path_factory.mktemp(family))
            assert result.checkpoint is not None
            originals[family] = result.checkpoint
        return originals[family]

    return get


def train_ids(data: DataSpec) -> list[str]:
    return [pair.id for pair in load_dataset(data).split("train")]


def unlearned(
    spec_for: Callable[..., RunSpec],
    original: Callable[[str], Path],
    family: str,
    **changes: object,
) -> RunSpec:
    spec = spec_for(family)
    given: dict[str, object] = {
        "checkpoint": original(family),
        "method": "multidelete",
        "params": SHORT,
        "forget": {"a": train_ids(spec.data)[:6]},
    }
    return spec_for(family, "unlearn", **(given | changes))


Spec = Callable[..., RunSpec]
Original = Callable[[str], Path]


@pytest.mark.parametrize("family", TASKS)
@pytest.mark.parametrize("method", ["multidelete", "retrain", "finetune"])
def test_a_model_is_trained_unlearned_and_evaluated(
    spec_for: Spec, original: Original, tmp_path: Path, family: str, method: str
) -> None:
    params = SHORT if method == "multidelete" else {}
    spec = unlearned(spec_for, original, family, method=method, params=params)
    result = run(spec, tmp_path)
    assert result.checkpoint == tmp_path / "checkpoint"
    loaded = load_checkpoint(result.checkpoint)
    assert loaded.digest.checkpoint_sha256 == result.checkpoint_sha256
    assert loaded.card["unlearning"][0]["method"] == method
    assert loaded.card["unlearning"][0]["pairs"] == 6
    for moment in ("before", "after"):
        for name, subset in (("d_test", "test"), ("d_f", "forget"), ("unseen_auc", "forget")):
            metric = find(result.metrics, name, moment, subset)
            assert metric is not None
            assert metric.value is not None
            assert metric.interval is not None
    assert find(result.metrics, "mi_ratio", "after", "forget") is not None
    excess = find(result.metrics, "utility_excess", "after", "val")
    assert (excess is not None) is (method == "multidelete")
    assert result.cost.steps > 0
    assert RunResult.model_validate_json((tmp_path / "result.json").read_text()) == result


def test_a_second_evaluation_gives_the_metrics_of_the_run(
    spec_for: Spec, original: Original, tmp_path: Path
) -> None:
    spec = unlearned(spec_for, original, "gcn_bert")
    first = run(spec, tmp_path / "a")
    again = run(
        spec_for("gcn_bert", "evaluate", checkpoint=first.checkpoint, forget=spec.forget),
        tmp_path / "b",
    )
    assert again.checkpoint is None
    for name, subset in (("d_test", "test"), ("d_f", "forget"), ("unseen_auc", "forget")):
        assert find(again.metrics, name, "after", subset) == find(
            first.metrics, name, "after", subset
        )


@pytest.mark.parametrize("family", TASKS)
def test_the_same_run_gives_the_same_bytes_and_another_seed_others(
    spec_for: Spec, original: Original, tmp_path: Path, family: str
) -> None:
    spec = unlearned(spec_for, original, family)
    first = run(spec, tmp_path / "a")
    second = run(spec, tmp_path / "b")
    other = run(spec.model_copy(update={"seed": 1}), tmp_path / "c")
    assert first.checkpoint_sha256 == second.checkpoint_sha256
    assert first.weights_sha256 != other.weights_sha256


class StopAt:
    """Cancels at the n-th event of a phase."""

    def __init__(self, checks: int) -> None:
        self.left = checks

    def check(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise Cancelled("stopped by the test")


@pytest.mark.parametrize("checks", [3, 40, 60])
def test_an_interrupted_run_goes_on_to_the_same_bytes(
    spec_for: Spec, tmp_path: Path, checks: int
) -> None:
    spec = spec_for("gcn_bert", training={"epochs": 20, "batch_size": 16})
    whole = run(spec, tmp_path / "whole")
    state = tmp_path / "state"
    with pytest.raises(Cancelled):
        run(spec, tmp_path / "cut", state=state, control=StopAt(checks))
    assert not (tmp_path / "cut" / "checkpoint").exists()
    assert not (tmp_path / "cut" / "result.json").exists()
    resumed = run(spec, tmp_path / "cut", state=state)
    assert resumed.weights_sha256 == whole.weights_sha256


def test_a_run_that_was_cut_short_after_its_training_counts_the_training_too(
    spec_for: Spec, tmp_path: Path
) -> None:
    spec = spec_for("gcn_bert", training={"epochs": 20, "batch_size": 16})
    state = tmp_path / "state"
    first = run(
        spec, tmp_path / "first", state=state
    )  # the state stays: as if its result were lost
    again = run(spec, tmp_path / "again", state=state)
    assert again.cost.steps == first.cost.steps
    assert again.cost.method_seconds >= first.cost.method_seconds * 0.9
    assert again.cost.seconds > again.cost.method_seconds


def test_what_an_attempt_left_between_checkpoint_and_result_is_replaced(
    spec_for: Spec, original: Original, tmp_path: Path
) -> None:
    spec = unlearned(spec_for, original, "gcn_bert")
    first = run(spec, tmp_path / "out", state=tmp_path / "state")
    (tmp_path / "out" / "result.json").unlink()
    again = run(spec, tmp_path / "out", state=tmp_path / "state")
    assert again.checkpoint_sha256 == first.checkpoint_sha256


def test_a_finished_result_is_never_replaced(
    spec_for: Spec, original: Original, tmp_path: Path
) -> None:
    spec = unlearned(spec_for, original, "gcn_bert")
    run(spec, tmp_path)
    with pytest.raises(InvalidSpec, match="holds the result of a run already"):
        run(spec, tmp_path)


def test_a_second_request_keeps_the_first_one_forgotten_and_measures_both(
    spec_for: Spec, original: Original, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Unlearning] = []
    fit = Unlearning.fit

    def spy(given: Unlearning, *args: Any, **options: Any) -> FitReport:
        seen.append(given)
        return fit(given, *args, **options)

    monkeypatch.setattr(Unlearning, "fit", spy)
    ids = train_ids(spec_for("gcn_bert").data)
    first = run(unlearned(spec_for, original, "gcn_bert"), tmp_path / "a")
    spec = unlearned(
        spec_for,
        original,
        "gcn_bert",
        checkpoint=first.checkpoint,
        forget={"b": ids[6:10], "c": ids[9:12]},
        forgotten={"a": ids[:6]},
    )
    second = run(spec, tmp_path / "b")
    sizes = {m.subset: m.n for m in second.metrics if m.name == "d_f" and m.moment == "after"}
    assert sizes == {"forget": 6, "forgotten": 12, "request:b": 4, "request:c": 3}
    assert second.checkpoint is not None
    steps = load_checkpoint(second.checkpoint).card["unlearning"]
    assert [step["pairs"] for step in steps] == [6, 6]
    assert steps[1]["parent_sha256"] == first.checkpoint_sha256
    # Later runs keep each request where its own audit says that it ended.
    told = {m.subset: m.value for m in second.metrics if m.name == "d_f" and m.moment == "after"}
    given = {m.subset: m.value for m in first.metrics if m.name == "d_f" and m.moment == "after"}
    parents = [step["parent_sha256"] for step in steps]
    assert [step["d_f"] for step in steps] == [
        {key(parents[0], "a"): given["forget"]},
        {key(parents[1], "b"): told["request:b"], key(parents[1], "c"): told["request:c"]},
    ]
    [run_b] = [run for run in seen if len(run.forgotten)]
    assert run_b.forgotten_by.tolist() == [0] * 6
    assert run_b.forgotten_d_f.tolist() == pytest.approx([given["forget"]] * 6)


def test_retrain_on_everything_that_stays_is_training_without_the_deleted(
    spec_for: Spec, original: Original, tmp_path: Path
) -> None:
    spec = unlearned(spec_for, original, "gcn_bert", method="retrain", params={})
    retrained = run(spec, tmp_path / "a")
    assert retrained.checkpoint is not None
    words = (retrained.checkpoint / "tokenizer.json").read_text()
    expected = run(spec_for("gcn_bert", forgotten=spec.forget), tmp_path / "b")
    assert expected.checkpoint is not None
    assert words == (expected.checkpoint / "tokenizer.json").read_text()
    assert words != (original("gcn_bert") / "tokenizer.json").read_text()


def test_a_checkpoint_names_no_pair(spec_for: Spec, original: Original, tmp_path: Path) -> None:
    spec = unlearned(spec_for, original, "albef")
    result = run(spec, tmp_path)
    assert result.checkpoint is not None
    for name in ("lethe.json", "README.md"):
        text = (result.checkpoint / name).read_text()
        assert not any(pair in text for pair in spec.forget["a"])


def test_progress_names_the_phases_in_order(
    spec_for: Spec, original: Original, tmp_path: Path
) -> None:
    events: list[Progress] = []
    run(unlearned(spec_for, original, "gcn_bert"), tmp_path, on_progress=events.append)
    phases = list(dict.fromkeys(event.phase for event in events))
    assert phases == ["load", "prepare", "evaluate_before", "unlearn", "evaluate_after", "save"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"method": None},
            InvalidSpec,
            "needs a method; known are dtd, erm_ktp, finetune, lcodec, multidelete, neggrad, retrain, ul",
        ),
        ({"method": "magic"}, InvalidSpec, "'magic' is unknown"),
        ({"method": "retrain", "update": "fusion", "params": {}}, NotApplicable, "update = all"),
        ({"checkpoint": None}, InvalidSpec, "needs a checkpoint"),
        ({"params": {"alpha": -1}}, InvalidSpec, "params does not fit.*alpha.*greater than"),
        (
            {"params": {"alfa-1": 1}},
            InvalidSpec,
            "'alfa-1': Extra inputs are not permitted; known are .*alpha, ",
        ),
        ({"device": "tpu"}, DeviceUnavailable, "'tpu' came; give one of cpu"),
        ({"forget": {"a": ["nobody"]}}, InvalidSpec, "1 pair ids are not in data set.*nobody"),
        ({"task": "retrieval"}, NotApplicable, "retrieval needs image data"),
        ({"family": "unknown"}, InvalidSpec, "known are albef"),
    ],
)
def test_a_run_that_cannot_be_is_refused_and_leaves_nothing(
    spec_for: Spec,
    original: Original,
    tmp_path: Path,
    changes: dict[str, object],
    error: type[Exception],
    message: str,
) -> None:
    good = unlearned(spec_for, original, "gcn_bert")
    spec = RunSpec.model_validate(good.model_dump() | changes)
    with pytest.raises(error, match=message):
        run(spec, tmp_path / "out")
    assert not (tmp_path / "out" / "checkpoint").exists()
    assert not (tmp_path / "out" / "result.json").exists()


def test_a_checkpoint_of_another_family_is_named(
    spec_for: Spec, original: Original, tmp_path: Path
) -> None:
    spec = unlearned(spec_for, original, "gcn_bert", checkpoint=original("albef"))
    with pytest.raises(InvalidSpec, match="the checkpoint is albef trained for retrieval"):
        run(spec, tmp_path)


def test_a_broken_image_is_named_and_nothing_is_published(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    rows = []
    for number in range(8):
        path = data / "images" / f"{number}.png"
        Image.new("RGB", (16, 32), (number * 20, 0, 0)).save(path)
        split = "train" if number < 6 else "val" if number == 6 else "test"
        row = {"id": f"p{number}", "image": f"images/{number}.png", "text": f"tone {number}"}
        rows.append(json.dumps(row | {"split": split}))
    broken = data / "images" / "3.png"
    broken.write_bytes(broken.read_bytes()[:40])
    (data / "manifest.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    spec = RunSpec(
        action="train",
        data=DataSpec(manifest=data / "manifest.jsonl", root=data),
        family="albef",
        task="retrieval",
        config=families.get("albef").tiny().model_dump(mode="json"),
    )
    with pytest.raises(DataError, match=r"images/3\.png"):
        run(spec, tmp_path / "out")
    assert not (tmp_path / "out" / "checkpoint").exists()


def test_a_run_leaves_the_settings_of_torch_as_they_were(
    spec_for: Spec, original: Original, tmp_path: Path
) -> None:
    threads = torch.get_num_threads()
    run(unlearned(spec_for, original, "gcn_bert", threads=2), tmp_path)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_digest_of_the_weights_is_that_of_the_file(
    spec_for: Spec, original: Original, tmp_path: Path
) -> None:
    result = run(unlearned(spec_for, original, "gcn_bert"), tmp_path)
    assert result.checkpoint is not None
    content = (result.checkpoint / "model.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() == result.weights_sha256


def test_a_run_says_its_precision_and_refuses_one_that_cannot_be_had(
    digits: DataSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = RunSpec(
        action="train",
        data=digits,
        family="albef",
        task="retrieval",
        config=families.get("albef").tiny().model_dump(mode="json"),
        training={"epochs": 1},
        precision="bf16",
    )
    monkeypatch.setattr("engine.environment.has_bf16", lambda _: False)
    with pytest.raises(InvalidSpec, match="no bf16 arithmetic"):
        run(spec, tmp_path / "refused")
    monkeypatch.setattr("engine.environment.has_bf16", lambda _: True)
    found = run(spec, tmp_path / "made")
    assert found.environment["precision"] == "bf16"
    plain = run(spec.model_copy(update={"precision": "auto"}), tmp_path / "plain")
    assert plain.environment["precision"] == "fp32"
    assert plain.weights_sha256 != found.weights_sha256
