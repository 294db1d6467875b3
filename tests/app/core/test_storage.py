"""Objects appear whole or not at all, and no key leaves the storage."""

from pathlib import Path

import pytest

from app.core.storage import ObjectMissing, Storage, StorageFull, StorageRefused


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage((tmp_path / "storage").as_uri())


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "sub" / "more.json").write_text("[1]")
    return folder


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_directory_comes_back_as_it_was(storage: Storage, checkpoint: Path, tmp_path: Path) -> None:
    storage.put_directory(checkpoint, "checkpoints/abc")
    storage.put_directory(checkpoint, "checkpoints/abc")
    assert files(tmp_path / "storage") == [
        "checkpoints/abc/config.json",
        "checkpoints/abc/sub/more.json",
    ]
    storage.get_directory("checkpoints/abc", tmp_path / "back")
    assert files(tmp_path / "back") == files(checkpoint)
    assert (tmp_path / "back" / "sub" / "more.json").read_text() == "[1]"


def test_works_on_a_storage_that_is_no_local_disk(checkpoint: Path, tmp_path: Path) -> None:
    storage = Storage("memory://lethe-test")
    storage.put_directory(checkpoint, "checkpoints/abc")
    storage.copy("checkpoints/abc/config.json", "copied.json")
    assert storage.size("copied.json") == 2
    assert storage.local_path("copied.json") is None
    storage.get_directory("checkpoints/abc", tmp_path / "back")
    assert files(tmp_path / "back") == files(checkpoint)
    storage.check()
    storage.delete("checkpoints/abc")
    assert not storage.exists("checkpoints/abc/config.json")
    with pytest.raises(ObjectMissing):
        storage.open("checkpoints/abc/config.json")


@pytest.mark.parametrize("key", ["", "/etc/x", "a/../b", "../b", "a//b", "./a", "a\\b", "a\0b"])
def test_key_that_could_leave_the_storage_is_refused(storage: Storage, key: str) -> None:
    for use in (storage.open, storage.exists, storage.delete, storage.size):
        with pytest.raises(ValueError, match="relative key"):
            use(key)


def test_missing_objects_are_an_error_and_deleting_them_is_none(
    storage: Storage, tmp_path: Path
) -> None:
    storage.delete("nothing/here")
    for use in (storage.open, storage.size):
        with pytest.raises(ObjectMissing):
            use("nothing")
    with pytest.raises(ObjectMissing):
        storage.get_directory("nothing", tmp_path / "back")
    with pytest.raises(ObjectMissing):
        storage.copy("nothing", "else")
    with pytest.raises(ObjectMissing):
        storage.get_file("nothing", tmp_path / "file")


def test_moved_file_is_gone_and_a_copied_one_stays(storage: Storage, tmp_path: Path) -> None:
    for name, move in (("a", True), ("b", False)):
        source = tmp_path / name
        source.write_text(name)
        storage.put_file(source, f"objects/{name}", move=move)
        assert source.exists() is not move
        assert storage.open(f"objects/{name}").read() == name.encode()


def test_full_disk_leaves_nothing_of_the_directory_behind(
    small_disk: Path, checkpoint: Path
) -> None:
    storage = Storage((small_disk / "storage").as_uri())
    storage.put_directory(checkpoint, "checkpoints/old")
    (checkpoint / "zeros.bin").write_bytes(bytes(2 << 20))
    with pytest.raises(StorageFull):
        storage.put_directory(checkpoint, "checkpoints/new")
    with pytest.raises(StorageFull):
        storage.put_directory(checkpoint, "checkpoints/old")
    assert files(small_disk / "storage") == [
        "checkpoints/old/config.json",
        "checkpoints/old/sub/more.json",
    ]


def test_full_disk_is_told_when_a_checkpoint_is_fetched(
    storage: Storage, small_disk: Path, tmp_path: Path
) -> None:
    source = tmp_path / "zeros"
    source.write_bytes(bytes(2 << 20))
    storage.put_file(source, "checkpoints/abc/zeros")
    with pytest.raises(StorageFull):
        storage.get_directory("checkpoints/abc", small_disk / "back")


def test_a_storage_that_may_not_be_written_says_so_and_keeps_nothing(
    storage: Storage, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "storage").mkdir()
    (tmp_path / "storage" / "staging").write_text("a file where a folder is needed")
    with pytest.raises(StorageRefused, match=r"Not a directory.*Give the service the right"):
        storage.put_directory(checkpoint, "checkpoints/abc")
    assert files(tmp_path / "storage") == ["staging"]
    with pytest.raises(StorageRefused) as refused:
        storage.put_file(checkpoint / "config.json", "staging/here/config.json")
    assert refused.value.status == 503
    assert str(tmp_path) not in refused.value.detail  # callers see it
