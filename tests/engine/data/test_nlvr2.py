import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.data.convert import convert
from engine.data.formats import detect_format, formats
from engine.errors import DataError

Row = dict[str, Any]
WriteLines = Callable[[str, list[Row]], Path]


def line(identifier: str, label: Any = "True", **more: Any) -> Row:
    sentence = "Both show a dog. "
    urls = {"left_url": "https://a.example/1.jpg", "right_url": "https://a.example/2.jpg"}
    return {"identifier": identifier, "sentence": sentence, "label": label, **urls, **more}


def images(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        for side in ("img0", "img1"):
            (folder / f"{name}-{side}.png").touch()


def rows(path: Path) -> list[Row]:
    return [found.row for found in formats.get("nlvr2").rows(path)]


def test_a_line_is_a_pair_of_two_photographs_and_a_statement(
    tmp_path: Path, write_lines: WriteLines
) -> None:
    images(tmp_path / "dev", "dev-850-2")
    found = rows(write_lines("dev.json", [line("dev-850-2-0"), line("dev-850-2-1", "False")]))
    assert found[0] | {"text_id": None} == {
        "id": "dev-850-2-0",
        "image": ["dev/dev-850-2-img0.png", "dev/dev-850-2-img1.png"],
        "item_id": ["dev-850-2-img0.png", "dev-850-2-img1.png"],
        "text": "Both show a dog.",
        "text_id": None,
        "label": 1,
        "split": "val",
    }
    assert found[1]["label"] == 0
    # The same statement has one text id, so that it can be deleted wherever it stands.
    assert found[0]["text_id"] == found[1]["text_id"]


def test_photographs_of_the_training_split_lie_in_numbered_folders(
    tmp_path: Path, write_lines: WriteLines
) -> None:
    images(tmp_path / "images" / "train" / "7", "train-10-0")
    images(tmp_path / "images" / "train" / "8", "train-10-0")
    found = rows(write_lines("train.json", [line("train-10-0-1", directory=8)]))
    assert found[0]["image"][0] == "images/train/8/train-10-0-img0.png"
    assert found[0]["split"] == "train"


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (line("dev-850-2-1", "Yes"), "the label is 'yes'; known are 'false', 'true'"),
        (line("dev-850-2-1", None), "label: Input should be a valid string"),
        (line("dev-850-2"), "the identifier is 'dev-850-2'; expected 'split-set-pair-sentence'"),
        (line("fold-850-2-0"), "the image 'fold-850-2-img0.png' is missing"),
        (line("dev-850-3-0"), "the image 'dev-850-3-img0.png' is missing"),
    ],
)
def test_a_broken_line_is_an_error_that_names_it(
    tmp_path: Path, write_lines: WriteLines, broken: Row, reason: str
) -> None:
    images(tmp_path, "dev-850-2")
    path = write_lines("dev.json", [line("dev-850-2-0"), broken])
    with pytest.raises(DataError) as caught:
        rows(path)
    assert str(caught.value).startswith(f"dev.json, line 2: {reason}")


def test_a_split_that_is_unknown_is_an_error(tmp_path: Path, write_lines: WriteLines) -> None:
    images(tmp_path, "fold-1-0")
    with pytest.raises(DataError, match=r"dev\.json, line 1: the split is 'fold'"):
        rows(write_lines("dev.json", [line("fold-1-0-0")]))


def test_the_published_lines_are_read_with_images_of_their_names(
    real_data: Path, tmp_path: Path
) -> None:
    sample = real_data / "nlvr2_sample"
    assert detect_format(sample).name == "nlvr2"
    with pytest.raises(DataError, match=r"dev_sample\.json, line 1: the image 'dev-850-0-img0\.pn"):
        convert(sample, tmp_path / "out.jsonl")
    shutil.copy(sample / "dev_sample.json", tmp_path)
    names = {f"dev-{group}-{pair}" for group in (850, 896, 481) for pair in range(4)}
    images(tmp_path / "dev", *names)
    report = convert(tmp_path, tmp_path / "out.jsonl")
    assert (report.format, report.task, report.classes) == ("nlvr2", "nlvr", 2)
    assert report.splits == {"train": 0, "val": 24, "test": 0}
    found = [json.loads(text) for text in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["label"] for row in found[:4]] == [0, 1, 0, 1]
    # Each of the 6 statements stands with 4 pairs of photographs.
    assert len({row["text_id"] for row in found}) == 6


def test_published_lines_are_found_beside_images_in_another_place(
    tmp_path: Path, write_lines: WriteLines
) -> None:
    images(tmp_path / "elsewhere" / "dev", "dev-1-0")
    path = write_lines("set/dev.json", [line("dev-1-0-0")])
    report = convert(path, tmp_path / "out.jsonl", images=tmp_path / "elsewhere")
    assert report.root == tmp_path / "elsewhere"
    row = json.loads((tmp_path / "out.jsonl").read_text())
    assert row["image"] == ["dev/dev-1-0-img0.png", "dev/dev-1-0-img1.png"]


def test_an_identifier_that_occurs_twice_is_named_with_both_places(
    tmp_path: Path, write_lines: WriteLines
) -> None:
    images(tmp_path / "dev", "dev-850-2")
    path = write_lines("dev.json", [line("dev-850-2-0"), line("dev-850-2-0", "False")])
    reason = (
        "dev.json, line 2: the id 'dev-850-2-0' was used in dev.json, line 1; ids must be unique"
    )
    with pytest.raises(DataError) as refused:
        convert(path, tmp_path / "out.jsonl")
    assert str(refused.value) == reason
    assert not (tmp_path / "out.jsonl").exists()
