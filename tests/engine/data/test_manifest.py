import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.data.items import GraphStore, ImageStore
from engine.data.manifest import load_dataset
from engine.data.pairs import Pair
from engine.errors import DataError
from engine.spec import DataSpec

Row = dict[str, Any]
Write = Callable[[list[Row]], Path]

FIRST: Row = {"id": "a", "image": "a.png", "text": "one", "split": "train"}
SECOND: Row = {"id": "b", "image": "b.png", "text": "two", "split": "val"}


def _load(manifest: Path) -> list[Pair]:
    return list(load_dataset(DataSpec(manifest=manifest, root=manifest.parent)).pairs)


def test_left_out_ids_get_their_defaults(write_manifest: Write) -> None:
    pair = _load(write_manifest([FIRST]))[0]
    expected = Pair("a", ("a.png",), ("a.png",), "one", "a", None, "train")
    assert pair == expected
    assert pair.line == 1


def test_given_ids_are_kept(write_manifest: Write) -> None:
    row = {**FIRST, "image": ["a.png", "b.png"], "item_id": ["i", "j"], "text_id": "t", "label": 2}
    pair = _load(write_manifest([row]))[0]
    assert (pair.items, pair.item_ids) == (("a.png", "b.png"), ("i", "j"))
    assert (pair.text_id, pair.label) == ("t", 2)


def test_pairs_keep_the_order_of_the_manifest_and_are_found_by_split(
    write_manifest: Write,
) -> None:
    rows = [
        {**FIRST, "id": name, "split": split}
        for name, split in zip("cab", ["test", "train", "test"], strict=True)
    ]
    manifest = write_manifest([{**row, "text_id": "t"} for row in rows])
    dataset = load_dataset(DataSpec(manifest=manifest, root=manifest.parent))
    assert [pair.id for pair in dataset.split("test")] == ["c", "b"]
    assert isinstance(dataset.items, ImageStore)
    assert (dataset.modality, dataset.classes) == ("image", None)


def test_classes_are_counted_from_the_labels(write_manifest: Write) -> None:
    rows = [{**FIRST, "label": 0}, {**SECOND, "label": 4}]
    manifest = write_manifest(rows)
    assert load_dataset(DataSpec(manifest=manifest, root=manifest.parent)).classes == 5


def test_graph_rows_make_a_graph_data_set(write_manifest: Write, graph_root: Path) -> None:
    row = {"id": "a", "graph": "graph/subgraphs_1hop.npz::p0", "text": "x", "split": "train"}
    dataset = load_dataset(DataSpec(manifest=write_manifest([row]), root=graph_root))
    assert dataset.modality == "graph"
    assert isinstance(dataset.items, GraphStore)
    assert dataset.items.load(dataset.pairs[0].items[0]).nodes.tolist() == [4, 2, 0]


def test_parquet_and_json_lines_give_the_same_pairs(write_manifest: Write, tmp_path: Path) -> None:
    rows = [{**FIRST, "label": 0, "text_id": None}, {**SECOND, "label": 1, "text_id": "t"}]
    table = tmp_path / "manifest.parquet"
    pq.write_table(pa.Table.from_pylist(rows), table)
    assert _load(table) == _load(write_manifest(rows))


def test_parquet_and_json_lines_give_the_same_pairs_of_two_images(
    write_manifest: Write, tmp_path: Path
) -> None:
    rows = [
        {**FIRST, "image": ["a.png", "b.png"], "item_id": ["i", "j"], "label": 0},
        {**SECOND, "image": ["b.png", "c.tar::c.png"], "item_id": ["j", "k"], "label": 1},
    ]
    table = tmp_path / "manifest.parquet"
    pq.write_table(pa.Table.from_pylist(rows), table)
    pairs = _load(table)
    assert pairs[1].items == ("b.png", "c.tar::c.png")
    assert pairs == _load(write_manifest(rows))


def test_blank_lines_are_no_rows_and_line_numbers_count_them(write_manifest: Write) -> None:
    manifest = write_manifest([FIRST])
    manifest.write_text(json.dumps(FIRST) + "\n\n{\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"manifest\.jsonl, line 3"):
        _load(manifest)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"graph": "g.npz::x"}, "exactly one of 'image' and 'graph'"),
        ({"image": None}, "exactly one of 'image' and 'graph'"),
        ({"image": []}, "image"),
        ({"image": ["a", "b", "c"]}, "image"),
        ({"item_id": ["a", "b"]}, "'item_id' must name 1 items"),
        ({"text": ""}, "text"),
        ({"text": 7}, "text"),
        ({"label": -1}, "label"),
        ({"label": "1"}, "label"),
        ({"label": True}, "label"),
        ({"split": "dev"}, "split"),
        ({"id": ""}, "id"),
        ({"id": "x" * 256}, "id"),
        ({"lable": 1}, "lable"),
    ],
)
def test_a_broken_row_is_an_error_that_names_file_line_and_reason(
    write_manifest: Write, changes: Row, reason: str
) -> None:
    manifest = write_manifest([FIRST, {**SECOND, **changes}])
    with pytest.raises(DataError, match=rf"manifest\.jsonl, line 2: .*{reason}"):
        _load(manifest)


def test_a_row_without_a_required_field_names_the_field(write_manifest: Write) -> None:
    for name in ("id", "text", "split"):
        row = {key: value for key, value in FIRST.items() if key != name}
        with pytest.raises(DataError, match=rf"line 1: {name}: Field required"):
            _load(write_manifest([row]))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"id": "a"}, r"'a' was used in manifest\.jsonl, line 1"),
        ({"label": 1}, "every pair has a label or none"),
        ({"image": ["b.png", "c.png"]}, "as many images as the first one, which has 1"),
        ({"image": None, "graph": "g.npz::x"}, "images or graphs, not both"),
        ({"text_id": "a"}, "stood for another text"),
        ({"image": "a.png", "item_id": "z"}, "had another item id"),
    ],
)
def test_rows_that_contradict_earlier_rows_are_an_error(
    write_manifest: Write, changes: Row, reason: str
) -> None:
    with pytest.raises(DataError, match=rf"line 2: .*{reason}"):
        _load(write_manifest([FIRST, {**SECOND, **changes}]))


def test_a_broken_parquet_row_names_its_number(tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.parquet"
    pq.write_table(pa.Table.from_pylist([FIRST, {**SECOND, "split": "dev"}]), manifest)
    with pytest.raises(DataError, match=r"manifest\.parquet, line 2: split"):
        _load(manifest)


def test_a_file_that_is_no_parquet_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "manifest.parquet").write_text("not parquet")
    with pytest.raises(DataError, match="readable Parquet"):
        _load(tmp_path / "manifest.parquet")


def test_bytes_that_are_no_text_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").write_bytes(b'{"id": "\xff\xfe"}\n')
    with pytest.raises(DataError, match="line 1"):
        _load(tmp_path / "manifest.jsonl")


def test_a_line_without_end_is_not_read_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.data.lines.MAX_LINE_BYTES", 100)
    (tmp_path / "manifest.jsonl").write_bytes(b"x" * 1000)
    with pytest.raises(DataError, match="at most 100 bytes"):
        _load(tmp_path / "manifest.jsonl")


def test_an_empty_or_missing_manifest_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").touch()
    with pytest.raises(DataError, match="at least one is needed"):
        _load(tmp_path / "manifest.jsonl")
    with pytest.raises(DataError, match="cannot be read"):
        _load(tmp_path / "none.jsonl")
