import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.data.convert import convert
from engine.data.formats import detect_format, formats
from engine.data.manifest import load_dataset
from engine.errors import DataError
from engine.spec import DataSpec

Row = dict[str, Any]
WriteLines = Callable[[str, list[Row]], Path]
LINE: Row = {
    "identifier": "train-0-0",
    "split": "train",
    "sentence": "drum is in the left image",
    "kind": "left",
    "left": "emojitwo/1f941.png",
    "right": "fluent3d/1f601.png",
    "label": 1,
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr(LINE["left"], b"")
        archive.writestr(LINE["right"], b"")
    return tmp_path


def rows(path: Path) -> list[Row]:
    return [found.row for found in formats.get("emoji_pairs").rows(path)]


def test_a_line_is_a_pair_of_two_drawings_left_one_first(
    root: Path, write_lines: WriteLines
) -> None:
    write_lines("image_pairs.jsonl", [LINE, {**LINE, "identifier": "train-0-1", "label": 0}])
    assert detect_format(root).name == "emoji_pairs"
    first, second = rows(root)
    assert first["image"] == [
        *("images.zip::emojitwo/1f941.png", "images.zip::fluent3d/1f601.png"),
    ]
    assert first["item_id"] == ["emojitwo/1f941.png", "fluent3d/1f601.png"]
    assert (first["label"], second["label"]) == (1, 0)
    assert first["text_id"] == second["text_id"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"label": 2}, "label: Input should be 0 or 1"),
        ({"label": "True"}, "label: Input should be 0 or 1"),
        ({"right": "noto/1.png"}, "the image 'noto/1.png' is missing"),
        ({"split": ""}, "the split is ''"),
    ],
)
def test_a_broken_line_is_an_error_that_names_it(
    root: Path, write_lines: WriteLines, changes: Row, reason: str
) -> None:
    write_lines("image_pairs.jsonl", [LINE, {**LINE, **changes}])
    with pytest.raises(DataError) as caught:
        rows(root)
    assert str(caught.value).startswith(f"image_pairs.jsonl, line 2: {reason}")


def test_the_real_pairs_load_with_both_drawings(real_data: Path, tmp_path: Path) -> None:
    report = convert(real_data / "emoji_reasoning" / "image_pairs.jsonl", tmp_path / "out.jsonl")
    assert (report.format, report.task, report.items_per_pair) == ("emoji_pairs", "nlvr", 2)
    assert report.splits == {"train": 11806, "val": 942, "test": 1886}
    dataset = load_dataset(DataSpec(manifest=tmp_path / "out.jsonl", root=report.root))
    assert sum(pair.label or 0 for pair in dataset.split("test")) == 886
    assert [dataset.items.load(item).size for item in dataset.pairs[0].items] == [(72, 72)] * 2


def test_an_identifier_that_occurs_twice_is_named_with_both_places(
    root: Path, write_lines: WriteLines
) -> None:
    path = write_lines("image_pairs.jsonl", [LINE, {**LINE, "label": 0}])
    reason = "line 2: the id 'train-0-0' was used in image_pairs.jsonl, line 1; ids must be unique"
    with pytest.raises(DataError, match=reason):
        convert(path, root / "out.jsonl")
