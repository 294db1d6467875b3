"""Manifests, digests, and which pairs are deleted."""

import json
from pathlib import Path

import pytest

from benchmarks.figures import BenchmarkError
from benchmarks.paper.data import Amount, BenchData, joined, prepare, requests
from benchmarks.paper.presets import PRESETS, Preset, Setting
from benchmarks.runs import data_digest
from engine import DataSpec
from engine.data.rows import write_rows

NOTHING = DataSpec(manifest=Path("m"), root=Path())


def _data(*sizes: int) -> BenchData:
    groups = [tuple(f"{group}-{k}" for k in range(size)) for group, size in enumerate(sizes)]
    return BenchData(NOTHING, "digest", groups)


def test_an_amount_is_a_number_of_pairs_or_a_share_of_the_training_pairs() -> None:
    assert Amount.parse("90").of(2573) == 90
    assert Amount.parse("3.5%").of(2573) == 90
    assert Amount.parse("0.1%").of(100) == 1


@pytest.mark.parametrize("text", ["0", "-3", "100%", "0%", "many", "3.5", "5%%"])
def test_an_amount_that_is_neither_is_refused(text: str) -> None:
    with pytest.raises(BenchmarkError, match="expected"):
        Amount.parse(text)


def test_a_smaller_draw_is_the_start_of_a_larger_one() -> None:
    data = _data(*[1] * 50)
    assert data.draw(20, seed=3)[:7] == data.draw(7, seed=3)
    assert data.draw(20, seed=3) != data.draw(20, seed=4)


def test_images_are_drawn_with_all_their_texts_until_there_are_enough_pairs() -> None:
    data = _data(*[5] * 20)
    chosen = data.draw(12, seed=0)
    assert [len(group) for group in chosen] == [5, 5, 5]
    assert len(set(joined(chosen))) == 15


def test_most_of_the_training_pairs_cannot_be_drawn() -> None:
    with pytest.raises(BenchmarkError, match="at most half"):
        _data(*[1] * 10).draw(6, seed=0)


def test_requests_cut_a_draw_without_dividing_an_image() -> None:
    groups = _data(*[5] * 25).groups
    cut = requests(groups)
    sizes = [len(ids) for ids in cut.values()]
    assert sizes == [10, 15, 15, 10, 10, 15, 15, 10, 10, 15]  # 25 images of 5 texts in 10 parts
    assert joined(groups) == [name for ids in cut.values() for name in ids]


def test_too_few_pairs_for_ten_requests_are_refused() -> None:
    with pytest.raises(BenchmarkError, match="delete more"):
        requests(_data(*[1] * 9).groups)


def test_whole_images_are_found_by_their_item_and_only_training_pairs_count(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "set"
    folder.mkdir(parents=True)
    rows = [
        {
            "id": f"{split}{image}{n}",
            "image": f"{image}.png",
            "text": f"t{image}{n}",
            "split": split,
        }
        for split, image in (("train", "a"), ("train", "b"), ("val", "c"))
        for n in range(3)
    ]
    write_rows(rows, folder / "manifest.jsonl")
    for image in "abc":
        (folder / f"{image}.png").write_bytes(b"pixels")
    whole = Preset("Set", "retrieval", "set", {"albef": Setting()}, whole_items=True)
    data = prepare(whole, tmp_path / "data", tmp_path / "out")
    assert data.groups == [("traina0", "traina1", "traina2"), ("trainb0", "trainb1", "trainb2")]
    assert data.training == 6


def test_a_data_set_that_is_not_there_is_named() -> None:
    with pytest.raises(BenchmarkError, match="--data"):
        prepare(PRESETS["pgr"], Path("/nowhere"), Path("/tmp/unused"))  # noqa: S108


def test_a_data_set_without_a_folder_of_data_sets_asks_for_one(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"PGR needs pgr .* none was named: give --data$"):
        prepare(PRESETS["pgr"], None, tmp_path)


def test_the_digest_is_of_the_manifest_and_of_what_it_refers_to(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"1")
    manifest = tmp_path / "m.jsonl"
    row = {"id": "x", "image": ["a.png", "b.zip::in.png"], "text": "t", "split": "train"}
    manifest.write_text(json.dumps(row) + "\n")
    (tmp_path / "b.zip").write_bytes(b"2")
    first = data_digest(manifest, tmp_path)
    assert data_digest(manifest, tmp_path) == first
    (tmp_path / "b.zip").write_bytes(b"3")
    assert data_digest(manifest, tmp_path) != first


def test_the_digest_is_of_the_texts_of_nodes_as_well(tmp_path: Path) -> None:
    manifest, nodes = tmp_path / "m.jsonl", tmp_path / "graph" / "nodes.tsv"
    row = {"id": "x", "graph": "graph/test.npz::1", "text": "t", "split": "train"}
    manifest.write_text(json.dumps(row) + "\n")
    nodes.parent.mkdir()
    (tmp_path / "graph" / "test.npz").write_bytes(b"1")
    nodes.write_text("gene A")
    first = data_digest(manifest, tmp_path)
    nodes.write_text("gene B")
    assert data_digest(manifest, tmp_path) != first
