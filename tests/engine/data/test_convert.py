import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine.data.__main__ import main
from engine.data.convert import convert
from engine.data.digits import write_digits
from engine.data.manifest import load_dataset
from engine.errors import DataError
from engine.spec import DataSpec

ROW = {"id": "a", "image": "a.png", "text": "one", "split": "train"}


def test_the_command_prints_a_report_and_writes_a_manifest_that_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_digits(tmp_path / "digits", pairs=50)
    out = tmp_path / "out.jsonl"
    assert main([str(tmp_path / "digits"), str(out)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["format"] == "digits"
    assert report["pairs"] == 50
    assert report["splits"] == {"train": 40, "val": 4, "test": 6}
    assert report["modality"] == "image"
    assert report["task"] == "retrieval"
    assert report["classes"] is None
    dataset = load_dataset(DataSpec(manifest=out, root=Path(report["root"])))
    assert len(dataset.pairs) == 50


def test_the_command_fails_with_the_reason_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), str(tmp_path / "out.jsonl")]) == 1
    assert capsys.readouterr().err.startswith("data_error: ")
    assert list(tmp_path.iterdir()) == []


def test_a_broken_row_leaves_neither_a_manifest_nor_a_part_of_one(tmp_path: Path) -> None:
    source = tmp_path / "manifest.jsonl"
    source.write_text(json.dumps(ROW) + "\n" + json.dumps({**ROW, "split": "dev"}) + "\n")
    with pytest.raises(DataError, match="line 2"):
        convert(source, tmp_path / "out.jsonl")
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    ("changes", "task", "classes"),
    [
        ({}, "retrieval", None),
        ({"label": 2}, "visual_entailment", 3),
        ({"label": 1}, None, 2),
        ({"image": ["a.png", "b.png"], "label": 1}, "nlvr", 2),
        ({"image": ["a.png", "b.png"]}, None, None),
        ({"image": None, "graph": "g.npz::a", "label": 1}, "graph_text", 2),
        ({"image": None, "graph": "g.npz::a"}, None, None),
    ],
)
def test_the_task_follows_from_modality_and_labels(
    tmp_path: Path, changes: dict[str, object], task: str | None, classes: int | None
) -> None:
    source = tmp_path / "manifest.jsonl"
    source.write_text(json.dumps({**ROW, **changes}) + "\n")
    report = convert(source, tmp_path / "out.jsonl")
    assert (report.task, report.classes) == (task, classes)


def test_images_in_another_place_are_refused_where_the_format_says_where_they_lie(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "manifest.jsonl"
    source.write_text(json.dumps(ROW) + "\n")
    command = [str(source), str(tmp_path / "out.jsonl"), "--images", str(tmp_path)]
    assert main(command) == 1
    assert "the format manifest says where its items lie" in capsys.readouterr().err


def test_a_folder_of_images_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder or archive of images"):
        convert(tmp_path, tmp_path / "out.jsonl", "karpathy", tmp_path / "none")


def test_a_data_set_without_pairs_leaves_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").touch()
    with pytest.raises(DataError, match="has no pairs; at least one is needed"):
        convert(tmp_path, tmp_path / "out.jsonl")
    assert not list(tmp_path.glob("out*"))


def test_neither_conversion_nor_digits_load_torch() -> None:
    code = (
        "import sys, engine.data.convert, engine.data.digits, engine.data.manifest, engine.metrics;"
        "print(sorted({'torch', 'transformers', 'torch_geometric'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
