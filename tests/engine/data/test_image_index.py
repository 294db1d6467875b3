import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from engine.data.files import DataFiles
from engine.data.image_index import ImageIndex
from engine.errors import DataError

WriteTar = Callable[[Path, Sequence[tuple[str, bytes]]], Path]


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def write_zip(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    return path


def test_images_are_found_in_folders_zips_and_shards_and_can_be_read(
    tmp_path: Path, write_tar: WriteTar
) -> None:
    write(tmp_path, "deep/er/loose.jpg")
    write_zip(tmp_path / "some.zip", "flickr/zipped.jpg")
    for shard in range(3):
        write_tar(tmp_path / "shards" / f"{shard:06d}.tar", [(f"{shard}.jpg", b"%d" % shard)])
    index = ImageIndex(tmp_path)
    found = [index.find(f"{name}.jpg", file="x") for name in ("loose", "zipped", "0", "2")]
    assert found == [
        "deep/er/loose.jpg",
        "some.zip::flickr/zipped.jpg",
        "shards/000000.tar::0.jpg",
        "shards/000002.tar::2.jpg",
    ]
    files = DataFiles(tmp_path)
    assert files.read(found[0]) == b"deep/er/loose.jpg"
    assert files.read(found[3]) == b"2"


def test_a_pipe_that_is_named_like_an_archive_is_no_archive(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg")
    os.mkfifo(tmp_path / "waiting.zip")
    assert ImageIndex(tmp_path).find("a.jpg", file="x") == "a.jpg"


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_can_be_the_root_itself(tmp_path: Path, write_tar: WriteTar, kind: str) -> None:
    path = tmp_path / f"images.{kind}"
    if kind == "zip":
        write_zip(path, "in/a.jpg")
    else:
        write_tar(path, [("in/a.jpg", b"in/a.jpg")])
    reference = ImageIndex(path).find("a.jpg", file="x")
    assert reference == "in/a.jpg"
    assert DataFiles(path).read(reference) == b"in/a.jpg"


def test_the_longer_name_decides_between_files_of_one_name(tmp_path: Path) -> None:
    write_zip(tmp_path / "images.zip", "noto/a.png", "blob/a.png")
    index = ImageIndex(tmp_path)
    assert index.find("blob/a.png", "a.png", file="x") == "images.zip::blob/a.png"
    # "to/a.png" is the end of a name, and not of a path.
    with pytest.raises(DataError, match=r"'to/a\.png' is missing"):
        index.find("to/a.png", file="x")


def test_a_shorter_name_is_tried_when_the_longer_one_is_not_there(tmp_path: Path) -> None:
    write(tmp_path, "flat/a.png")
    assert ImageIndex(tmp_path).find("val2014/a.png", "a.png", file="x") == "flat/a.png"


def test_two_files_that_fit_alike_are_an_error_that_names_both(tmp_path: Path) -> None:
    write(tmp_path, "one/a.png", "two/a.png")
    with pytest.raises(DataError) as caught:
        ImageIndex(tmp_path).find("a.png", file="x.jsonl", line=7)
    reason = "the image 'a.png' lies at one/a.png and at two/a.png; keep one"
    assert str(caught.value) == f"x.jsonl, line 7: {reason}"


def test_an_archive_goes_before_what_was_unpacked_from_it(tmp_path: Path) -> None:
    write(tmp_path, "images/a.png")
    write_zip(tmp_path / "images.zip", "images/a.png")
    assert ImageIndex(tmp_path).find("a.png", file="x") == "images.zip::images/a.png"


def test_the_exact_path_goes_before_a_longer_one(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "thumbnails/a.png")
    assert ImageIndex(tmp_path).find("a.png", file="x") == "a.png"


def test_hidden_folders_are_not_searched(tmp_path: Path) -> None:
    write(tmp_path, ".cache/a.png", "images/a.png")
    assert ImageIndex(tmp_path).find("a.png", file="x") == "images/a.png"


def test_a_missing_image_is_an_error_that_names_source_line_and_root(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        ImageIndex(tmp_path).find("a/b.png", "b.png", file="x.jsonl", line=3)
    assert str(caught.value) == (
        "x.jsonl, line 3: the image 'b.png' is missing: no folder and no zip or tar archive below "
        f"{tmp_path} holds it"
    )


@pytest.mark.parametrize("name", ["images.zip", "images.tar"])
def test_a_broken_archive_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(DataError, match=rf"{name[:6]}\.{name[7:]}: expected a readable"):
        ImageIndex(tmp_path).find("a.png", file="x")
