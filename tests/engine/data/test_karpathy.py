import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from engine.data.convert import convert
from engine.data.formats import detect_format, formats
from engine.data.manifest import load_dataset
from engine.errors import DataError
from engine.spec import DataSpec

Image = dict[str, Any]


def _image(number: int, name: str, split: str, **more: Any) -> Image:
    sentences = [
        {
            "raw": f" Caption {number}{letter} . ",
            "tokens": [],
            "imgid": number,
            "sentid": 2 * number + k,
        }
        for k, letter in enumerate("ab")
    ]
    return {"imgid": number, "filename": name, "split": split, "sentences": sentences, **more}


def _write(root: Path, images: list[Image]) -> Path:
    (root / "dataset.json").write_text(json.dumps({"images": images, "dataset": "x"}))
    return root


def _rows(root: Path) -> list[dict[str, Any]]:
    return [found.row for found in formats.get("karpathy").rows(root)]


def test_every_sentence_of_an_image_in_a_folder_is_a_pair(tmp_path: Path, png: bytes) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(png)
    rows = _rows(_write(tmp_path, [_image(3, "a.jpg", "val")]))
    common = {"image": "images/a.jpg", "item_id": "a.jpg", "split": "val"}
    assert rows == [
        {"id": "3-6", "text": "Caption 3a .", "text_id": "6", **common},
        {"id": "3-7", "text": "Caption 3b .", "text_id": "7", **common},
    ]


def test_images_are_found_in_an_archive(tmp_path: Path, png: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        archive.writestr("pictures/a.jpg", png)
    root = _write(tmp_path, [_image(0, "a.jpg", "train")])
    assert _rows(root)[0]["image"] == "pictures.zip::pictures/a.jpg"
    convert(root, tmp_path / "out.jsonl")
    dataset = load_dataset(DataSpec(manifest=tmp_path / "out.jsonl", root=root))
    assert dataset.items.load(dataset.pairs[0].items[0]).size == (30, 40)


def test_images_of_coco_lie_below_their_filepath(tmp_path: Path, png: bytes) -> None:
    for folder in ("train2014", "val2014"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{folder}_1.jpg").write_bytes(png)
    images = [
        _image(0, "train2014_1.jpg", "train", filepath="train2014", cocoid=5),
        _image(1, "val2014_1.jpg", "restval", filepath="val2014", cocoid=6),
    ]
    rows = _rows(_write(tmp_path, images))
    assert {row["image"] for row in rows} == {
        "train2014/train2014_1.jpg",
        "val2014/val2014_1.jpg",
    }
    assert {row["split"] for row in rows} == {"train"}


def test_a_missing_image_is_an_error_that_names_it(tmp_path: Path, png: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(png)
    root = _write(tmp_path, [_image(0, "a.jpg", "train"), _image(1, "b.jpg", "train")])
    with pytest.raises(DataError, match=r"dataset\.json, images\[1\]: .*'b\.jpg' is missing"):
        _rows(root)


def test_no_images_at_all_is_an_error(tmp_path: Path) -> None:
    root = _write(tmp_path, [_image(0, "a.jpg", "train")])
    with pytest.raises(
        DataError, match=r"images\[0\]: the image 'a\.jpg' is missing: no folder and no zip or tar"
    ):
        _rows(root)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"split": "fold1"}, r"images\[0\]: the split is 'fold1'"),
        ({"sentences": [{"sentid": 1}]}, r"images\[0\]: sentences\.0\.raw: Field required"),
        ({"filename": None}, r"images\[0\]: filename: Input should be"),
        ({"sentences": []}, r"images\[0\]: sentences: List should have at least 1 item"),
    ],
)
def test_a_broken_entry_is_an_error_that_names_its_place(
    tmp_path: Path, broken: Image, reason: str
) -> None:
    (tmp_path / "a.jpg").touch()
    root = _write(tmp_path, [{**_image(0, "a.jpg", "train"), **broken}])
    with pytest.raises(DataError, match=reason):
        _rows(root)


def test_an_entry_that_is_no_object_is_an_error_that_names_its_place(tmp_path: Path) -> None:
    text = json.dumps({"images": [_image(0, "a.jpg", "train"), 7]})
    (tmp_path / "dataset.json").write_text(text)
    (tmp_path / "a.jpg").touch()
    with pytest.raises(DataError, match=r"dataset\.json, images\[1\]: expected a JSON object"):
        _rows(tmp_path)


def test_a_sentence_id_that_occurs_twice_is_named_with_both_places(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    root = _write(tmp_path, [_image(0, "a.jpg", "train"), _image(0, "a.jpg", "val")])
    with pytest.raises(DataError) as caught:
        convert(root, tmp_path / "out.jsonl")
    assert str(caught.value) == (
        "dataset.json, images[1]: the id '0-0' was used in dataset.json, images[0]; "
        "ids must be unique"
    )


def test_flickr30k_as_published_has_no_filepath_and_a_flat_folder(
    tmp_path: Path, png: bytes
) -> None:
    (tmp_path / "flickr30k-images").mkdir()
    (tmp_path / "flickr30k-images" / "1000092795.jpg").write_bytes(png)
    image = _image(0, "1000092795.jpg", "train", sentids=[0, 1])
    (tmp_path / "dataset_flickr30k.json").write_text(
        json.dumps({"images": [image], "dataset": "flickr30k"})
    )
    rows = _rows(tmp_path)
    assert [row["id"] for row in rows] == ["0-0", "0-1"]
    assert rows[0]["image"] == "flickr30k-images/1000092795.jpg"
    assert rows[0]["item_id"] == "1000092795.jpg"


def test_json_that_is_cut_short_is_an_error(tmp_path: Path) -> None:
    root = _write(tmp_path, [_image(0, "a.jpg", "train")])
    path = root / "dataset.json"
    path.write_text(path.read_text()[:-5])
    with pytest.raises(DataError, match=r"dataset\.json: expected JSON"):
        _rows(root)


def test_the_real_captions_load_with_their_images(real_data: Path, tmp_path: Path) -> None:
    root = real_data / "emoji_retrieval"
    report = convert(root, tmp_path / "out.jsonl")
    assert (report.format, report.task) == ("karpathy", "retrieval")
    assert report.splits == {"train": 24175, "val": 1250, "test": 2500}
    dataset = load_dataset(DataSpec(manifest=tmp_path / "out.jsonl", root=root))
    assert len({pair.item_ids for pair in dataset.pairs}) == 5585
    assert dataset.items.load(dataset.pairs[-1].items[0]).size == (72, 72)


def test_two_caption_files_in_one_folder_are_an_error_that_names_both(tmp_path: Path) -> None:
    root = _write(tmp_path, [_image(0, "a.jpg", "train")])
    (root / "other.json").write_bytes((root / "dataset.json").read_bytes())
    reason = r"found dataset\.json, other\.json: give the path of the one that is meant"
    with pytest.raises(DataError, match=reason):
        _rows(root)
    with pytest.raises(DataError, match=reason):
        detect_format(root)
    assert detect_format(root / "other.json").name == "karpathy"


def test_a_damaged_archive_of_images_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "images.zip").write_bytes(b"PK no archive")
    with pytest.raises(DataError, match=r"images\.zip: expected a readable zip"):
        _rows(_write(tmp_path, [_image(0, "a.jpg", "train")]))


def test_a_file_without_images_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text('{"images": [], "x": {"sentences": 0, "split": 0}}')
    with pytest.raises(DataError, match="at least one image"):
        _rows(tmp_path)
