import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from engine.data.convert import convert
from engine.data.formats import detect_format
from engine.data.manifest import load_dataset
from engine.errors import DataError
from engine.spec import DataSpec

WriteTar = Callable[[Path, Sequence[tuple[str, bytes]]], Path]


def test_parts_of_one_key_are_a_pair_and_the_folder_says_the_split(
    tmp_path: Path, write_tar: WriteTar, png: bytes
) -> None:
    root = tmp_path / "set"
    first = [("0000.jpg", png), ("0000.txt", b"a dog \n"), ("0001.PNG", png), ("0001.txt", b"cat")]
    write_tar(root / "train" / "000000.tar", first)
    write_tar(root / "val-000000.tar", [("in/0002.jpeg", png), ("in/0002.txt", b"cow")])
    assert detect_format(root).name == "webdataset"
    report = convert(root, tmp_path / "out.jsonl")
    assert (report.task, report.splits) == ("retrieval", {"train": 2, "val": 1, "test": 0})
    dataset = load_dataset(DataSpec(manifest=tmp_path / "out.jsonl", root=report.root))
    found = {pair.id: (pair.text, pair.items[0]) for pair in dataset.pairs}
    assert found == {
        "0000": ("a dog", "train/000000.tar::0000.jpg"),
        "0001": ("cat", "train/000000.tar::0001.PNG"),
        "in/0002": ("cow", "val-000000.tar::in/0002.jpeg"),
    }
    assert dataset.items.load("train/000000.tar::0001.PNG").size == (30, 40)


def test_labels_splits_and_second_images_are_read(tmp_path: Path, write_tar: WriteTar) -> None:
    described = {"caption": "both are red", "label": 1, "split": "test"}
    files = [
        *(("a.1.png", b""), ("a.0.png", b""), ("a.json", json.dumps(described).encode())),
        *(("b.0.png", b""), ("b.1.png", b""), ("b.txt", b"x"), ("b.cls", b"0\n")),
        ("b.json", b'{"split": "train"}'),
    ]
    path = write_tar(tmp_path / "pairs.tar", files)
    assert convert(path, tmp_path / "out.jsonl").task == "nlvr"
    found = [json.loads(text) for text in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert found[0] == {
        "id": "a",
        "image": ["pairs.tar::a.0.png", "pairs.tar::a.1.png"],
        "text": "both are red",
        "split": "test",
        "label": 1,
    }
    assert (found[1]["text"], found[1]["label"], found[1]["split"]) == ("x", 0, "train")


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ([("b.txt", b"x")], "expected one or two images (jpg, jpeg, png, webp); it has 0"),
        ([("b.jpg", b"")], "expected a text: .txt, or 'text' or 'caption' in .json"),
        ([("b.jpg", b""), ("b.txt", b"\xff")], "the .txt cannot be read: "),
        ([("b.jpg", b""), ("b.txt", b"x"), ("b.cls", b"dog")], "the .cls is 'dog'; expected the"),
        ([("b.jpg", b""), ("b.txt", b"x"), ("b.cls", b"9" * 5000)], "the .cls is '9999999999999"),
        ([("b.jpg", b""), ("b.json", b"{")], "expected JSON in .json: "),
        ([("b.jpg", b""), ("b.json", b"[" * 100_000)], "the JSON in .json is nested too deeply"),
        ([("b.jpg", b""), ("b.json", b"[]")], "expected a JSON object in .json"),
        ([("b.jpg", b""), ("b.txt", b" ")], "text: String should have at least 1 character"),
    ],
)
def test_a_broken_pair_is_an_error_that_names_shard_and_key(
    tmp_path: Path, write_tar: WriteTar, files: list[tuple[str, bytes]], reason: str
) -> None:
    write_tar(tmp_path / "train-0.tar", [("a.jpg", b""), ("a.txt", b"x"), *files])
    with pytest.raises(DataError) as caught:
        convert(tmp_path, tmp_path / "out.jsonl")
    assert str(caught.value).startswith(f"train-0.tar::b: {reason}")


def test_a_key_in_two_shards_is_an_error_that_names_both(
    tmp_path: Path, write_tar: WriteTar
) -> None:
    for shard in range(2):
        write_tar(tmp_path / f"train-{shard}.tar", [("a.jpg", b""), ("a.txt", b"x")])
    with pytest.raises(DataError, match=r"train-1\.tar::a: the id 'a' was used in train-0\.tar::a"):
        convert(tmp_path, tmp_path / "out.jsonl")


def test_shards_that_say_no_split_are_refused(tmp_path: Path, write_tar: WriteTar) -> None:
    write_tar(tmp_path / "000000.tar", [("a.jpg", b""), ("a.txt", b"x")])
    with pytest.raises(DataError, match=r"000000\.tar: the name of the file must say which split"):
        convert(tmp_path, tmp_path / "out.jsonl")


def test_a_shard_that_is_cut_short_is_named(tmp_path: Path, write_tar: WriteTar) -> None:
    write_tar(tmp_path / "train-0.tar", [("a.jpg", b""), ("a.txt", b"x")])
    cut = write_tar(tmp_path / "train-1.tar", [("b.jpg", b"x" * 900), ("b.txt", b"x")])
    cut.write_bytes(cut.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"train-1\.tar: expected a readable tar archive"):
        convert(tmp_path, tmp_path / "out.jsonl")


def test_shards_of_images_alone_are_no_data_set(tmp_path: Path, write_tar: WriteTar) -> None:
    write_tar(tmp_path / "000000.tar", [("a.jpg", b""), ("b.jpg", b"")])
    with pytest.raises(DataError, match="none fits"):
        detect_format(tmp_path)


@pytest.mark.parametrize("name", [None, "webdataset"])
@pytest.mark.parametrize("shard", ["train-0.tar.gz", "train/0.TGZ"])
def test_shards_that_are_compressed_are_an_error_that_says_what_to_do(
    tmp_path: Path, name: str | None, shard: str
) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / shard).touch()
    reason = "shards must be plain .tar files, and .* is compressed: decompress it"
    for path in (tmp_path, tmp_path / shard):
        with pytest.raises(DataError, match=reason):
            convert(path, tmp_path / "out.jsonl", name)


def test_a_folder_without_shards_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected shards, whose names end in \.tar"):
        convert(tmp_path, tmp_path / "out.jsonl", "webdataset")
