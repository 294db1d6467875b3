"""A data set of each published format goes to the service by the report of `lethe convert`."""

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from app.registry.catalogue import catalogue
from tests.terminal import environment

Make = Callable[[Path], Path | None]
SPLITS = ("train", "val", "test")


def _lines(path: Path, *rows: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _images(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def _karpathy(root: Path) -> Path:
    """Annotations in one place, images in another."""
    images = [
        {
            "imgid": number,
            "filename": f"{number}.jpg",
            "split": split,
            "sentences": [
                {"raw": f"Caption {number}{n}", "sentid": 2 * number + n} for n in (0, 1)
            ],
        }
        for number, split in enumerate(SPLITS)
    ]
    (root / "annotations").mkdir()
    (root / "annotations" / "dataset.json").write_text(json.dumps({"images": images}))
    return _images(root / "images", "0.jpg", "1.jpg", "2.jpg")


def _snli_ve(root: Path) -> None:
    for number, split in enumerate(("train", "dev", "test")):
        row = {"pairID": f"{number}.jpg#0r1n", "Flickr30K_ID": str(number), "sentence2": "A dog."}
        _lines(root / f"snli_ve_{split}.jsonl", {**row, "gold_label": "neutral"})
    _images(root / "flickr30k", "0.jpg", "1.jpg", "2.jpg")


def _nlvr2(root: Path) -> None:
    for split in ("train", "dev", "test1"):
        urls = {"left_url": "https://a.example/1.jpg", "right_url": "https://a.example/2.jpg"}
        row = {"identifier": f"{split}-1-0-0", "sentence": "Both show a dog.", "label": "True"}
        _lines(root / f"{split}.json", {**row, **urls})
        _images(root / split, f"{split}-1-0-img0.png", f"{split}-1-0-img1.png")


def _pgr(root: Path) -> None:
    mentions = {"gene": {"id": "G:1", "start": 0, "end": 3}}
    mentions["phenotype"] = {"id": "HP:2", "start": 11, "end": 17}
    rows = [
        {"id": f"p{number}", "split": split, "text": f"ABC causes ataxia ({number}).", "label": 1}
        for number, split in enumerate(SPLITS)
    ]
    _lines(root / "pairs.jsonl", *({**row, **mentions} for row in rows))
    (root / "graph").mkdir()
    graphs = {"node_ptr": [0, 2, 4, 6], "node_idx": [0, 1] * 3, "edge_ptr": [0, 1, 2, 3]}
    ends = {"edge_src": [0] * 3, "edge_dst": [1] * 3}
    names = [f"p{number}" for number in range(3)]
    np.savez(root / "graph" / "subgraphs_1hop.npz", pair_id=names, **graphs, **ends)
    (root / "graph" / "nodes.tsv").write_text("node\ttext\n0\tABC\n1\tataxia\n")


def _webdataset(root: Path) -> None:
    for split in SPLITS:
        (root / split).mkdir()
        with tarfile.open(root / split / "000000.tar", "w") as archive:
            for name, content in ((f"{split}.jpg", b""), (f"{split}.txt", b"A dog.")):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def _manifest(root: Path) -> None:
    rows = ({"id": name, "image": "a.png", "text": name, "split": name} for name in SPLITS)
    _lines(root / "manifest.jsonl", *rows)
    _images(root, "a.png")


MADE: dict[str, Make] = {
    "karpathy": _karpathy,
    "snli_ve": _snli_ve,
    "nlvr2": _nlvr2,
    "pgr": _pgr,
    "webdataset": _webdataset,
    "manifest": _manifest,
}
"""What writes a small data set of the format and returns where its images are, if that must be said."""

OWN = {"digits", "emoji_entailment", "emoji_pairs"}
"""Not published: what demo and benchmarks run on, which send them to a service of their own."""


def _convert(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app.cli", "convert", *map(str, arguments)]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment(), timeout=120
    )


@pytest.mark.parametrize("name", MADE)
def test_a_published_data_set_is_registered_by_what_the_conversion_reports(
    client: TestClient, data_root: Path, tmp_path: Path, name: str
) -> None:
    root = data_root / name
    root.mkdir()
    images = MADE[name](root)
    source = root / "annotations" if images else root
    apart = ["--images", images] if images else []
    done = _convert(source, tmp_path / "pairs.jsonl", *apart)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["format"] == name

    given = {"name": name, **{key: report[key] for key in ("modality", "root", "classes")}}
    dataset = client.post("/v1/datasets", json=given).json()
    answer = client.put(
        f"/v1/datasets/{dataset['dataset_id']}/pairs",
        content=(tmp_path / "pairs.jsonl").read_bytes(),
        headers={"Content-Type": "application/jsonl"},
    )
    assert answer.status_code == 200, answer.text
    ready = answer.json()
    assert ready["status"] == "ready"
    assert ready["split_counts"] == report["splits"]
    assert set(ready["split_counts"].values()) == {report["pairs"] // 3}
    assert ready["items_per_pair"] == report["items_per_pair"]


def test_the_catalogue_names_every_format_and_each_published_one_is_tried_here(
    client: TestClient,
) -> None:
    formats = client.get("/v1/catalogue").json()["formats"]
    assert set(formats) == set(catalogue().formats) == set(MADE) | OWN
    apart = {name for name, entry in formats.items() if entry["images_apart"]}
    assert apart == {"karpathy", "snli_ve", "nlvr2"} | OWN - {"digits"}


def test_the_command_names_the_formats_and_what_is_wrong_with_a_folder(tmp_path: Path) -> None:
    assert "karpathy: Karpathy-split JSON" in _convert("--help").stdout
    done = _convert(tmp_path, tmp_path / "pairs.jsonl")
    assert done.returncode == 1
    assert "expected a data set of one known format (digits, " in done.stderr
    assert not (tmp_path / "pairs.jsonl").exists()
