import io
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from engine.data.archives import BrokenArchive, is_archive, open_archive

WriteTar = Callable[[Path, Sequence[tuple[str, bytes]]], Path]
FILES = [("inner/a.txt", b"alpha"), ("b.txt", b"beta" * 400), ("c.txt", b"")]


def add_link(archive: tarfile.TarFile, name: str, target: str, kind: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    archive.addfile(member)


def test_files_of_a_tar_are_read_in_any_order(tmp_path: Path, write_tar: WriteTar) -> None:
    archive = open_archive(write_tar(tmp_path / "000000.tar", FILES))
    assert list(archive.names) == [name for name, _ in FILES]
    for name, content in reversed(FILES):
        assert archive.read(name) == content
        assert archive.size(name) == len(content)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_tar_is_read_with_long_and_foreign_names(tmp_path: Path, form: int) -> None:
    names = ["Bär/猫.png" if form == tarfile.PAX_FORMAT else "a.png", "x/" * 60 + "long.png"]
    with tarfile.open(tmp_path / "a.tar", "w", format=form) as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 3
            archive.addfile(member, io.BytesIO(b"abc"))
    found = open_archive(tmp_path / "a.tar")
    assert [found.read(name) for name in names] == [b"abc", b"abc"]


def test_a_tar_of_a_folder_has_names_without_the_leading_dot(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"a")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "images", ".")
    assert list(open_archive(tmp_path / "a.tar").names) == ["a.png"]


def test_a_hard_link_reads_as_its_file_and_a_symbolic_one_is_no_file(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member = tarfile.TarInfo("./a.png")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"a"))
        add_link(archive, "./hard.png", "./a.png", tarfile.LNKTYPE)
        add_link(archive, "soft.png", "a.png", tarfile.SYMTYPE)
        add_link(archive, "far.png", "/etc/hostname", tarfile.SYMTYPE)
    found = open_archive(tmp_path / "a.tar")
    assert list(found.names) == ["a.png", "hard.png"]
    assert found.read("hard.png") == b"a"
    with pytest.raises(KeyError):
        found.read("far.png")


def test_an_index_of_many_members_finds_each(tmp_path: Path, write_tar: WriteTar) -> None:
    files = [(f"{number:06d}.txt", str(number).encode()) for number in range(5000)]
    archive = open_archive(write_tar(tmp_path / "big.tar", files))
    assert len(archive.names) == 5000
    assert [archive.read(f"{n:06d}.txt") for n in (0, 2500, 4999)] == [b"0", b"2500", b"4999"]


# 512 bytes of header and 512 of content a file of up to 512, and two blocks at the end.
@pytest.mark.parametrize(
    ("size", "why"),
    [
        (0, "empty file"),
        (300, "truncated header"),
        (700, "unexpected end of data"),
        (1200, "cut short"),
        (1536 + 900, "unexpected end of data"),
        (512 * 7, "cut short"),
        (512 * 7 + 100, "cut short"),
    ],
)
def test_a_tar_that_is_cut_anywhere_is_refused(
    tmp_path: Path, write_tar: WriteTar, size: int, why: str
) -> None:
    whole = write_tar(tmp_path / "a.tar", FILES).read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[:size])
    with pytest.raises(BrokenArchive, match=why):
        open_archive(tmp_path / "a.tar")


def test_a_damaged_header_does_not_end_a_tar_in_silence(
    tmp_path: Path, write_tar: WriteTar
) -> None:
    content = bytearray(write_tar(tmp_path / "a.tar", FILES).read_bytes())
    content[1024 + 150] ^= 0xFF
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(BrokenArchive, match=r"after 1 files .* is damaged"):
        open_archive(tmp_path / "a.tar")


def test_two_tars_in_one_file_are_refused(tmp_path: Path, write_tar: WriteTar) -> None:
    first = write_tar(tmp_path / "a.tar", FILES[:1]).read_bytes()
    second = write_tar(tmp_path / "b.tar", FILES[1:]).read_bytes()
    (tmp_path / "both.tar").write_bytes(first + second)
    with pytest.raises(BrokenArchive, match="two archives in one file"):
        open_archive(tmp_path / "both.tar")


def test_a_tar_that_is_cut_after_it_was_opened_is_refused_at_the_read(
    tmp_path: Path, write_tar: WriteTar
) -> None:
    path = write_tar(tmp_path / "a.tar", FILES)
    archive = open_archive(path)
    path.write_bytes(path.read_bytes()[:1600])
    with pytest.raises(BrokenArchive, match="ends in this member of 1600 bytes"):
        archive.read("b.txt")
    path.unlink()
    with pytest.raises(BrokenArchive, match="No such file"):
        archive.read("b.txt")


def test_two_members_of_one_name_are_refused(tmp_path: Path, write_tar: WriteTar) -> None:
    twice = [("a.png", b"1"), ("b.png", b"2"), ("./a.png", b"3")]
    with pytest.raises(BrokenArchive, match=r"two members named 'a\.png'"):
        open_archive(write_tar(tmp_path / "a.tar", twice))
    with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        warnings.simplefilter("ignore")
        for name in ("a.png", "b.png", "b.png"):
            archive.writestr(name, b"x")
    with pytest.raises(BrokenArchive, match=r"two members named 'b\.png'"):
        open_archive(tmp_path / "a.zip")


def test_a_file_with_holes_is_refused(tmp_path: Path, write_tar: WriteTar) -> None:
    path = write_tar(tmp_path / "a.tar", FILES[:1])
    header = bytearray(path.read_bytes())
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    path.write_bytes(header)
    with pytest.raises(BrokenArchive, match="stored with holes"):
        open_archive(path)


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "A.TAR.XZ"])
def test_a_compressed_tar_is_refused_with_the_advice(tmp_path: Path, name: str) -> None:
    with pytest.raises(BrokenArchive, match=r"decompress it to \.tar"):
        open_archive(tmp_path / name)


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no archive" * 100)
    with pytest.raises(BrokenArchive, match=f"expected a readable {name[2:]} archive"):
        open_archive(tmp_path / name)


def test_only_what_can_be_searched_counts_as_an_archive() -> None:
    assert [is_archive(name) for name in ("a.zip", "B.TAR", "a.tar.gz", "a.png")] == [
        *(True, True, False, False)
    ]
