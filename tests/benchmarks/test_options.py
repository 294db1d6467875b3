"""What options of several benchmarks must be."""

from pathlib import Path

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.figures import BenchmarkError
from benchmarks.options import make_folder, require_writable, usable_device


def test_a_gpu_is_named_by_a_number_that_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    given = ("auto", "cuda", "cuda:1", "cpu")
    assert [usable_device(asked) for asked in given] == ["cuda", "cuda", "cuda:1", "cpu"]
    with pytest.raises(BenchmarkError, match=r"give one of auto, cpu, cuda:0, cuda:1$"):
        usable_device("cuda:2")


def test_without_a_gpu_auto_is_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert usable_device("auto") == "cpu"


def test_to_look_whether_a_file_can_be_written_changes_nothing(tmp_path: Path) -> None:
    require_writable(tmp_path / "new.json")
    assert not list(tmp_path.iterdir())
    (tmp_path / "old.json").write_text("old")
    require_writable(tmp_path / "old.json")
    assert (tmp_path / "old.json").read_text() == "old"


def test_a_folder_is_made_with_those_above_it_and_a_file_is_none(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(BenchmarkError, match="file cannot be one: it is a file"):
        make_folder(tmp_path / "file")
    with pytest.raises(BenchmarkError, match="Not a directory"):
        make_folder(tmp_path / "file" / "below")


def test_no_benchmark_measures_what_it_could_not_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["startup", "--json", str(tmp_path / "missing" / "figures.json")]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "--json needs a file that can be written" in sentence
