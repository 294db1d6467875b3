import zipfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from engine.data import digits
from engine.data.digits import LENGTH, TILE, WORDS, main, write_digits
from engine.data.manifest import load_dataset
from engine.data.pairs import PairDataset
from engine.errors import DataError
from engine.spec import DataSpec


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("digits")
    write_digits(out, pairs=300, seed=7)
    return out


@pytest.fixture(scope="module")
def dataset(folder: Path) -> PairDataset:
    return load_dataset(DataSpec(manifest=folder / "manifest.jsonl", root=folder))


def test_no_caption_occurs_twice_in_the_whole_data_set(dataset: PairDataset) -> None:
    assert len({pair.text for pair in dataset.pairs}) == 300
    assert len({pair.text_id for pair in dataset.pairs}) == 300


def test_every_image_shows_real_scans_of_the_digits_that_its_caption_says(
    dataset: PairDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = _tiles(monkeypatch)
    for pair in dataset.pairs:
        image = np.asarray(dataset.items.load(pair.items[0]).convert("L"))
        assert image.shape == (TILE, LENGTH * TILE)
        for place, word in enumerate(pair.text.split()):
            # The outermost columns of a tile are blended with its neighbour by the enlargement.
            core = image[:, place * TILE + 1 : (place + 1) * TILE - 1]
            assert WORDS[known[core.tobytes()][0]] == word


def test_no_scan_is_shared_between_splits(
    dataset: PairDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = _tiles(monkeypatch)
    seen: dict[str, set[int]] = {"train": set(), "val": set(), "test": set()}
    for pair in dataset.pairs:
        image = np.asarray(dataset.items.load(pair.items[0]).convert("L"))
        for place in range(LENGTH):
            core = image[:, place * TILE + 1 : (place + 1) * TILE - 1]
            seen[pair.split].add(known[core.tobytes()][1])
    assert all(seen.values())
    assert all(one.isdisjoint(other) for one, other in pairwise([*seen.values(), seen["train"]]))


def _tiles(monkeypatch: pytest.MonkeyPatch) -> dict[bytes, tuple[int, int]]:
    """Map the core of each scan's tile to its digit and row."""
    images, targets = load_digits(return_X_y=True)
    found = {}
    for row, (scan, target) in enumerate(zip(images.reshape(-1, 1, 8, 8), targets, strict=True)):
        tile = _decode(digits._png(scan))
        found[tile[:, 1:-1].tobytes()] = (int(target), row)
    return found


def _decode(png: bytes) -> np.ndarray:
    import io

    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(png)))


def test_the_same_seed_gives_the_same_bytes_and_another_seed_gives_others(
    folder: Path, tmp_path: Path
) -> None:
    write_digits(tmp_path / "again", pairs=300, seed=7)
    write_digits(tmp_path / "other", pairs=300, seed=8)
    for name in ("images.zip", "manifest.jsonl", "digits.json"):
        content = (folder / name).read_bytes()
        assert (tmp_path / "again" / name).read_bytes() == content
        assert (tmp_path / "other" / name).read_bytes() != content


def test_images_lie_uncompressed_for_random_access(folder: Path) -> None:
    with zipfile.ZipFile(folder / "images.zip") as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


@pytest.mark.parametrize("pairs", [24, 10_001])
def test_an_impossible_number_of_pairs_is_an_error(tmp_path: Path, pairs: int) -> None:
    with pytest.raises(DataError, match=str(pairs)):
        write_digits(tmp_path / "out", pairs=pairs)
    assert not (tmp_path / "out").exists()


def test_a_seed_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a seed from 0 on was expected, and -1 came"):
        write_digits(tmp_path / "out", seed=-1)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_or_written_is_told_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "there" / "images.zip").mkdir(parents=True)
    reasons = {"file": "File exists", "file/below": "Not a directory", "there": "Is a directory"}
    for name, reason in reasons.items():
        assert main([str(tmp_path / name), "--pairs", "25"]) == 1
        assert capsys.readouterr().err == (
            f"data_error: {tmp_path / name}: the data set cannot be written there: {reason}; "
            "name another folder\n"
        )


def test_the_command_writes_the_folder_and_reports_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "a"), "--pairs", "25"]) == 0
    assert (tmp_path / "a" / "manifest.jsonl").read_text().count("\n") == 25
    assert main([str(tmp_path / "b"), "--pairs", "1"]) == 1
    assert "data_error" in capsys.readouterr().err
