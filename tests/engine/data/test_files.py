import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data import files
from engine.data.files import DataFiles
from engine.errors import DataError


@pytest.fixture
def root(tmp_path: Path, write_tar: Callable[[Path, list[tuple[str, bytes]]], Path]) -> Path:
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "folder" / "a.txt").write_bytes(b"alpha")
    with zipfile.ZipFile(root / "things.zip", "w") as archive:
        archive.writestr("inner/b.txt", b"beta")
    write_tar(root / "folder" / "000000.tar", [("inner/c.txt", b"gamma")])
    (tmp_path / "secret.txt").write_bytes(b"secret")
    return root


def test_a_file_in_a_folder_is_read(root: Path) -> None:
    assert DataFiles(root).read("folder/a.txt") == b"alpha"


def test_a_member_of_an_archive_below_the_root_is_read(root: Path) -> None:
    assert DataFiles(root).read("things.zip::inner/b.txt") == b"beta"


def test_a_member_of_a_shard_below_the_root_is_read(root: Path) -> None:
    assert DataFiles(root).read("folder/000000.tar::inner/c.txt") == b"gamma"


def test_the_root_may_be_an_archive_itself(root: Path) -> None:
    assert DataFiles(root / "things.zip").read("inner/b.txt") == b"beta"
    assert DataFiles(root / "folder" / "000000.tar").read("inner/c.txt") == b"gamma"


def test_files_can_be_read_again_after_closing(root: Path) -> None:
    data = DataFiles(root)
    data.read("things.zip::inner/b.txt")
    data.close()
    assert data.read("things.zip::inner/b.txt") == b"beta"


@pytest.mark.parametrize(
    "reference",
    [
        "../secret.txt",
        "folder/../../secret.txt",
        "/etc/hostname",
        "",
        ".",
        "folder\\a.txt",
        "folder/a.txt\0",
        "things.zip::../secret.txt",
        "things.zip::/etc/hostname",
        "folder/000000.tar::../../secret.txt",
        "folder/000000.tar::/etc/hostname",
        "../things.zip::inner/b.txt",
    ],
)
def test_a_reference_that_leaves_the_root_is_refused(root: Path, reference: str) -> None:
    with pytest.raises(DataError):
        DataFiles(root).read(reference)


def test_a_link_out_of_the_root_is_refused(root: Path) -> None:
    (root / "link.txt").symlink_to(root.parent / "secret.txt")
    (root / "up").symlink_to(root.parent)
    for reference in ("link.txt", "up/secret.txt"):
        with pytest.raises(DataError, match="leaves the data set's root"):
            DataFiles(root).read(reference)


def test_a_link_that_stays_below_the_root_is_followed(root: Path) -> None:
    (root / "same.txt").symlink_to(root / "folder" / "a.txt")
    assert DataFiles(root).read("same.txt") == b"alpha"


@given(st.text(max_size=40))
def test_no_reference_reads_a_file_beside_the_root(
    tmp_path_factory: pytest.TempPathFactory, reference: str
) -> None:
    base = tmp_path_factory.getbasetemp() / "guarded"
    (base / "root").mkdir(parents=True, exist_ok=True)
    (base / "secret.txt").write_bytes(b"secret")
    for name in (reference, f"../{reference}", f"{reference}/../../secret.txt"):
        with pytest.raises(DataError):
            DataFiles(base / "root").read(name)


@pytest.mark.parametrize(
    "reference", ["folder/none.txt", "things.zip::none.txt", "folder/000000.tar::no", "none.zip::a"]
)
def test_a_missing_file_is_an_error_that_names_the_reference(root: Path, reference: str) -> None:
    with pytest.raises(DataError, match=reference.replace(".", r"\.")):
        DataFiles(root).read(reference)


def test_a_damaged_archive_is_an_error_that_names_the_reference(root: Path) -> None:
    content = bytearray((root / "things.zip").read_bytes())
    content[content.index(b"beta")] ^= 0xFF
    (root / "things.zip").write_bytes(content)
    with pytest.raises(DataError, match=r"things\.zip::inner/b\.txt.*damaged"):
        DataFiles(root).read("things.zip::inner/b.txt")


def test_a_file_that_is_no_archive_is_refused_as_one(root: Path) -> None:
    with pytest.raises(DataError, match="zip archive"):
        DataFiles(root).read("folder/a.txt::member")


def test_a_shard_that_is_cut_short_is_an_error_that_names_the_reference(root: Path) -> None:
    shard = root / "folder" / "000000.tar"
    shard.write_bytes(shard.read_bytes()[:515])
    with pytest.raises(DataError, match=r"^folder/000000\.tar::inner/c\.txt: expected a readable"):
        DataFiles(root).read("folder/000000.tar::inner/c.txt")


def test_a_missing_root_is_an_error(root: Path) -> None:
    with pytest.raises(DataError, match="folder, or a zip or tar archive"):
        DataFiles(root / "nowhere")


def test_a_file_over_the_size_limit_is_not_read(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 3)
    for reference in ("folder/a.txt", "things.zip::inner/b.txt", "folder/000000.tar::inner/c.txt"):
        with pytest.raises(DataError, match="at most 3"):
            DataFiles(root).read(reference)
