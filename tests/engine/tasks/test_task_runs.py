"""Whole runs of the tasks over images: a published layout, training, forgetting, measuring."""

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from engine import DataSpec, RunResult, RunSpec, load_checkpoint, run
from engine.audit import find
from engine.data.convert import convert
from engine.data.digits import write_digits
from engine.errors import DataError
from engine.families import families

WORDS = ("contradiction", "neutral", "entailment")
SPLITS = ("train",) * 8 + ("dev", "test")
SHORT = {"epochs": 2, "batch_size": 16}
UNLEARNING = {"epochs": 2, "least_steps": 4, "least_retained": 8}


@pytest.fixture(scope="module")
def pngs(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """60 images of digits."""
    root = tmp_path_factory.mktemp("pngs")
    write_digits(root, pairs=60, seed=3)
    with zipfile.ZipFile(root / "images.zip") as archive:
        return [archive.read(name) for name in archive.namelist()]


def write_shard(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def snli_ve(root: Path, pngs: list[bytes]) -> None:
    """Photographs in two shards, three hypotheses of each in the layout of SNLI-VE."""
    rows: dict[str, list[str]] = {split: [] for split in SPLITS}
    for number in range(len(pngs)):
        for word in WORDS:
            row = {"Flickr30K_ID": f"{number}", "pairID": f"{number}.jpg#0r1{word[0]}"}
            row |= {"gold_label": word, "sentence2": f"this is {word} number {number}"}
            rows[SPLITS[number % 10]].append(json.dumps(row))
    for split, lines in rows.items():
        (root / f"snli_ve_{split}.jsonl").write_text("\n".join(lines) + "\n")
    for shard, first in enumerate((0, 30)):
        files = {f"{number}.jpg": pngs[number] for number in range(first, first + 30)}
        write_shard(root / "images" / f"{shard:06d}.tar", files)


def nlvr2(root: Path, pngs: list[bytes]) -> None:
    """Two photographs and two statements of each pair in the layout of NLVR2."""
    for number in range(len(pngs)):
        split = SPLITS[number % 10]
        for side in range(2):
            content = pngs[(number + side) % len(pngs)]
            (root / f"{split}-{number}-0-img{side}.png").write_bytes(content)
        with (root / f"{split}.json").open("a") as lines:
            for sentence, label in enumerate(("False", "True")):
                row = {"identifier": f"{split}-{number}-0-{sentence}", "label": label}
                row |= {"sentence": f"this is {label}, {number}", "left_url": "", "right_url": ""}
                lines.write(json.dumps(row) + "\n")


LAYOUTS = {"visual_entailment": snli_ve, "nlvr": nlvr2}


@pytest.fixture(params=list(LAYOUTS))
def task(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def data(task: str, tmp_path: Path, pngs: list[bytes]) -> DataSpec:
    root = tmp_path / "published"
    root.mkdir()
    LAYOUTS[task](root, pngs)
    report = convert(root, tmp_path / "manifest.jsonl")
    assert report.task == task
    return DataSpec(manifest=tmp_path / "manifest.jsonl", root=report.root)


def spec(data: DataSpec, task: str, **more: Any) -> RunSpec:
    given: dict[str, Any] = {"action": "train", "data": data, "family": "albef", "task": task}
    config = families.get("albef").tiny().model_dump()
    return RunSpec(**(given | {"config": config, "training": SHORT} | more))


def train(data: DataSpec, task: str, out: Path, **more: Any) -> RunResult:
    return run(spec(data, task, **more), out)


def test_a_published_layout_is_trained_on_forgotten_from_and_measured(
    data: DataSpec, task: str, tmp_path: Path
) -> None:
    original = train(data, task, tmp_path / "original")
    assert original.checkpoint is not None
    rows = [json.loads(line) for line in data.manifest.read_text().splitlines()]
    forget = [row["id"] for row in rows if row["split"] == "train"][:9]
    unlearning = spec(
        data,
        task,
        action="unlearn",
        checkpoint=original.checkpoint,
        method="multidelete",
        params=UNLEARNING,
        forget={"r": forget},
    )
    result = run(unlearning, tmp_path / "after")
    accuracy = find(result.metrics, "d_test", "after", "test")
    assert accuracy is not None
    assert accuracy.n == sum(row["split"] == "test" for row in rows)
    assert sum(one["n"] for one in accuracy.details["per_label"].values()) == accuracy.n
    d_f = find(result.metrics, "d_f", "after", "forget")
    assert d_f is not None
    assert d_f.n == 9


@pytest.mark.parametrize("task", ["visual_entailment"])
def test_a_broken_photograph_stops_a_run_and_is_named(
    data: DataSpec, task: str, tmp_path: Path
) -> None:
    shard = data.root / "images" / "000001.tar"
    content = bytearray(shard.read_bytes())
    content[512:520] = b"no image"  # the first bytes of the first photograph in the shard
    shard.write_bytes(content)
    with pytest.raises(DataError) as caught:
        train(data, task, tmp_path / "out")
    assert str(caught.value).startswith("images/000001.tar::30.jpg: expected a whole image")
    assert "BytesIO" not in str(caught.value)


def test_the_depth_of_the_ranking_stays_with_the_checkpoint(tmp_path: Path) -> None:
    root = tmp_path / "digits"
    write_digits(root, pairs=60, seed=4)
    data = DataSpec(manifest=root / "manifest.jsonl", root=root)
    trained = train(data, "retrieval", tmp_path / "trained", training={**SHORT, "rerank": 128})
    assert trained.checkpoint is not None
    assert load_checkpoint(trained.checkpoint).card["training"]["rerank"] == 128
    again = spec(data, "retrieval", action="evaluate", checkpoint=trained.checkpoint, training={})
    for result in (trained, run(again, tmp_path / "again")):
        recall = find(result.metrics, "ir_r1", "after", "test")
        assert recall is not None
        assert recall.details["reranked"] == 128
