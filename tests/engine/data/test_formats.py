import json
from pathlib import Path

import pytest

from engine.data.convert import convert
from engine.data.digits import write_digits
from engine.data.formats import detect_format, formats
from engine.errors import DataError, InvalidSpec

ROW = {"id": "a", "image": "a.png", "text": "one", "split": "train"}


def test_every_format_is_registered_under_its_own_name() -> None:
    assert list(formats) == [
        *("digits", "emoji_entailment", "emoji_pairs", "karpathy", "manifest", "nlvr2", "pgr"),
        *("snli_ve", "webdataset"),
    ]
    assert all(formats.get(name).name == name for name in formats)


def test_a_folder_of_no_known_format_is_an_error_that_lists_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"digits, emoji_entailment, .* webdataset\); none fits"):
        detect_format(tmp_path)


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        detect_format(tmp_path / "none")


def test_a_folder_of_two_formats_is_an_error_that_names_both(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").write_text(json.dumps(ROW) + "\n")
    (tmp_path / "d.json").write_text('{"images": [{"sentences": [], "split": "train"}]}')
    with pytest.raises(DataError, match="karpathy, manifest fit: give the path of the one file"):
        detect_format(tmp_path)


def test_a_digits_folder_is_digits_and_not_a_bare_manifest(tmp_path: Path) -> None:
    write_digits(tmp_path, pairs=25)
    assert detect_format(tmp_path).name == "digits"


@pytest.mark.parametrize("as_file", [True, False])
def test_a_manifest_is_converted_to_itself(tmp_path: Path, *, as_file: bool) -> None:
    (tmp_path / "manifest.jsonl").write_text(json.dumps(ROW) + "\n")
    path = tmp_path / "manifest.jsonl" if as_file else tmp_path
    report = convert(path, tmp_path / "out.jsonl")
    assert (report.format, report.root, report.task) == ("manifest", tmp_path, "retrieval")
    assert json.loads((tmp_path / "out.jsonl").read_text()) == ROW


def test_an_unknown_format_name_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="'nope' is unknown"):
        convert(tmp_path, tmp_path / "out.jsonl", "nope")


@pytest.mark.parametrize("name", [None, "manifest"])
def test_a_folder_with_two_manifests_is_an_error_that_names_both(
    tmp_path: Path, name: str | None
) -> None:
    (tmp_path / "manifest.jsonl").touch()
    (tmp_path / "manifest.parquet").touch()
    with pytest.raises(DataError) as caught:
        convert(tmp_path, tmp_path / "out.jsonl", name)
    assert str(caught.value) == (
        f"{tmp_path}: expected one manifest.jsonl or manifest.parquet; manifest.jsonl, "
        "manifest.parquet are there: give the path of the one that is meant"
    )


def test_a_folder_without_a_manifest_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none is there"):
        convert(tmp_path, tmp_path / "out.jsonl", "manifest")
