import time
import zipfile
from collections import Counter
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
    "pairID": "eve-0",
    "split": "train",
    "split_unseen": "test",
    "image": "noto/1f9ce.png",
    "concept": "1f9ce",
    "sentence2": "this is a person kneeling",
    "gold_label": "entailment",
}


def drawings(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("noto/1f9ce.png", b"")
        archive.writestr("blobmoji/1f9ce.png", b"")


def rows(path: Path) -> list[Row]:
    return [found.row for found in formats.get("emoji_entailment").rows(path)]


@pytest.mark.parametrize("place", ["reasoning/images.zip", "emoji_retrieval/images.zip"])
def test_drawings_lie_in_the_folder_or_in_the_one_beside_it(
    tmp_path: Path, write_lines: WriteLines, place: str
) -> None:
    path = write_lines("reasoning/entailment.jsonl", [LINE])
    drawings(tmp_path / place)
    for source in (path, path.parent):
        form = detect_format(source)
        assert form.name == "emoji_entailment"
        assert form.root(source) == (tmp_path / place).parent
        assert rows(source) == [
            {
                "id": "eve-0",
                "image": "images.zip::noto/1f9ce.png",
                "item_id": "noto/1f9ce.png",
                "text": "this is a person kneeling",
                "label": 2,
                "split": "train",
            }
        ]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"gold_label": "-"}, "the label is '-'; known are 'contradiction'"),
        ({"gold_label": 2}, "gold_label: Input should be a valid string"),
        ({"split": "fold1"}, "the split is 'fold1'"),
        ({"image": "noto/1.png"}, "the image 'noto/1.png' is missing"),
        ({"sentence2": None}, "sentence2: Input should be a valid string"),
    ],
)
def test_a_broken_line_is_an_error_that_names_it(
    tmp_path: Path, write_lines: WriteLines, changes: Row, reason: str
) -> None:
    drawings(tmp_path / "images.zip")
    path = write_lines("entailment.jsonl", [LINE, {**LINE, **changes}])
    with pytest.raises(DataError) as caught:
        rows(path)
    assert str(caught.value).startswith(f"entailment.jsonl, line 2: {reason}")


def test_a_text_of_no_words_is_an_error_of_its_line(
    tmp_path: Path, write_lines: WriteLines
) -> None:
    drawings(tmp_path / "images.zip")
    write_lines("entailment.jsonl", [LINE, {**LINE, "pairID": "eve-1", "sentence2": ""}])
    with pytest.raises(DataError, match=r"entailment\.jsonl, line 2: text: String should have"):
        convert(tmp_path, tmp_path / "out.jsonl")
    assert not list(tmp_path.glob("out*"))


def test_the_real_pairs_are_converted_within_seconds(real_data: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    path = real_data / "emoji_reasoning" / "entailment.jsonl"
    report = convert(path, tmp_path / "out.jsonl")
    assert time.monotonic() - began < 20
    assert (report.format, report.task, report.pairs) == (
        *("emoji_entailment", "visual_entailment", 30723),
    )
    dataset = load_dataset(DataSpec(manifest=tmp_path / "out.jsonl", root=report.root))
    counts = Counter((pair.split, pair.label) for pair in dataset.pairs)
    assert [counts["train", label] for label in (2, 1, 0)] == [8384, 8624, 9580]
    assert [counts["test", label] for label in (2, 1, 0)] == [870, 891, 998]
    assert dataset.items.load(dataset.pairs[-1].items[0]).size == (72, 72)


def test_a_folder_with_both_files_asks_for_one_of_them(real_data: Path) -> None:
    with pytest.raises(DataError, match="emoji_entailment, emoji_pairs fit: give the path of the"):
        detect_format(real_data / "emoji_reasoning")


def test_an_id_that_occurs_twice_is_named_with_both_places(
    tmp_path: Path, write_lines: WriteLines
) -> None:
    path = write_lines("entailment.jsonl", [LINE, {**LINE, "gold_label": "neutral"}])
    drawings(tmp_path / "images.zip")
    reason = "line 2: the id 'eve-0' was used in entailment.jsonl, line 1; ids must be unique"
    with pytest.raises(DataError, match=reason):
        convert(path, tmp_path / "out.jsonl")
