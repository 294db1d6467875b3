import json
import shutil
from collections.abc import Callable, Sequence
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
WriteTar = Callable[[Path, Sequence[tuple[str, bytes]]], Path]


def line(number: int, label: str, key: str = "Flickr30K_ID", image: str = "12") -> Row:
    return {
        key: image,
        "annotator_labels": [label],
        "captionID": f"{image}.jpg#0",
        "gold_label": label,
        "pairID": f"{image}.jpg#0r{number}",
        "sentence1": "A dog runs.",
        "sentence1_parse": "(ROOT)",
        "sentence2": f" Hypothesis {number}. ",
    }


def rows(path: Path) -> list[Row]:
    return [found.row for found in formats.get("snli_ve").rows(path)]


def test_a_line_is_a_pair_of_its_photograph_and_hypothesis(
    tmp_path: Path, write_lines: WriteLines
) -> None:
    (tmp_path / "12.jpg").touch()
    labels = ("contradiction", "neutral", "entailment")
    path = write_lines("snli_ve_dev.jsonl", [line(n, label) for n, label in enumerate(labels)])
    found = rows(path)
    assert found[0] == {
        "id": "12.jpg#0r0",
        "image": "12.jpg",
        "item_id": "12.jpg",
        "text": "Hypothesis 0.",
        "label": 0,
        "split": "val",
    }
    assert [row["label"] for row in found] == [0, 1, 2]


def test_the_misspelt_key_of_older_files_is_read_as_well(
    tmp_path: Path, write_lines: WriteLines
) -> None:
    (tmp_path / "12.jpg").touch()
    path = write_lines("snli_ve_train.jsonl", [line(0, "neutral", key="Flikr30kID")])
    assert detect_format(path).name == "snli_ve"
    assert rows(path)[0]["image"] == "12.jpg"


def test_a_folder_of_splits_is_one_data_set_with_images_in_shards(
    tmp_path: Path, write_lines: WriteLines, write_tar: WriteTar, png: bytes
) -> None:
    for number, split in enumerate(("train", "dev", "test")):
        write_lines(f"set/snli_ve_{split}.jsonl", [line(number, "neutral", image=f"{number}")])
        write_tar(tmp_path / "set" / "images" / f"{number:06d}.tar", [(f"{number}.jpg", png)])
    report = convert(tmp_path / "set", tmp_path / "out.jsonl")
    assert report.format == "snli_ve"
    assert report.splits == {"train": 1, "val": 1, "test": 1}
    dataset = load_dataset(DataSpec(manifest=tmp_path / "out.jsonl", root=report.root))
    by_split = {pair.split: pair.items[0] for pair in dataset.pairs}
    assert by_split["test"] == "images/000002.tar::2.jpg"
    assert dataset.items.load(by_split["train"]).size == (30, 40)


@pytest.mark.parametrize("label", ["-", "Entailment", ""])
def test_a_label_without_agreement_or_of_another_set_is_an_error_that_names_the_line(
    tmp_path: Path, write_lines: WriteLines, label: str
) -> None:
    (tmp_path / "12.jpg").touch()
    path = write_lines("snli_ve_test.jsonl", [line(0, "neutral"), line(1, label)])
    with pytest.raises(DataError) as caught:
        rows(path)
    assert str(caught.value) == (
        f"snli_ve_test.jsonl, line 2: the label is {label!r}; known are 'contradiction', "
        "'neutral', 'entailment'"
    )


def test_a_line_without_its_photograph_names_the_line(
    tmp_path: Path, write_lines: WriteLines
) -> None:
    broken = line(1, "neutral")
    del broken["Flickr30K_ID"]
    (tmp_path / "12.jpg").touch()
    path = write_lines("snli_ve_test.jsonl", [line(0, "neutral"), broken])
    with pytest.raises(DataError, match=r"snli_ve_test\.jsonl, line 2: Flickr30K_ID: Field requ"):
        rows(path)


def test_a_missing_photograph_is_named_with_the_line(
    tmp_path: Path, write_lines: WriteLines
) -> None:
    (tmp_path / "12.jpg").touch()
    path = write_lines("snli_ve_test.jsonl", [line(0, "neutral"), line(1, "neutral", image="13")])
    with pytest.raises(DataError, match=r"test\.jsonl, line 2: the image '13\.jpg' is missing"):
        rows(path)


def test_an_id_in_two_splits_is_an_error_that_names_both_places(
    tmp_path: Path, write_lines: WriteLines
) -> None:
    (tmp_path / "12.jpg").touch()
    write_lines("snli_ve_dev.jsonl", [line(8, "neutral")])
    write_lines("snli_ve_test.jsonl", [line(9, "neutral"), line(8, "neutral")])
    with pytest.raises(DataError) as caught:
        convert(tmp_path, tmp_path / "out.jsonl")
    assert str(caught.value) == (
        "snli_ve_test.jsonl, line 2: the id '12.jpg#0r8' was used in snli_ve_dev.jsonl, line 1; "
        "ids must be unique"
    )


def test_a_file_whose_name_says_no_split_is_refused(
    tmp_path: Path, write_lines: WriteLines
) -> None:
    path = write_lines("some.jsonl", [line(0, "neutral")])
    with pytest.raises(DataError, match=r"some\.jsonl: the name of the file must say which split"):
        rows(path)


def test_the_published_lines_are_read_with_images_of_their_names(
    real_data: Path, tmp_path: Path, png: bytes
) -> None:
    sample = real_data / "snli_ve_sample" / "snli_ve_sample.jsonl"
    assert detect_format(sample).name == detect_format(sample.parent).name == "snli_ve"
    shutil.copy(sample, tmp_path / "snli_ve_test.jsonl")
    (tmp_path / "3416050480.jpg").write_bytes(png)
    report = convert(tmp_path, tmp_path / "out.jsonl")
    assert (report.task, report.classes, report.pairs) == ("visual_entailment", 3, 3)
    found = [json.loads(text) for text in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["label"] for row in found] == [1, 0, 2]
    assert found[2]["text"] == "A person is outdoors, on a horse."
    assert {row["item_id"] for row in found} == {"3416050480.jpg"}
