"""Whatever is wrong with a data set, `lethe convert` says it in one sentence that names the place."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.data.__main__ import main
from engine.data.convert import BUILT_IN, convert
from engine.data.formats import Format, SourceRow, detect_format, formats
from engine.data.manifest import load_dataset
from engine.errors import DataError
from engine.spec import DataSpec

Row = dict[str, Any]
WriteLines = Callable[[str, list[Row]], Path]
Rows = Callable[[Path], Any]
ROW: Row = {"id": "a", "image": "a.png", "text": "one", "split": "train"}
NAMES = [*(module.__name__.rpartition(".")[2] for module in BUILT_IN), "manifest"]
DEEP = "[" * 100_000
PAIR: Row = {
    "id": "p0",
    "split": "train",
    "text": "ABC causes ataxia.",
    "gene": {"id": "G:1", "start": 0, "end": 3},
    "phenotype": {"id": "HP:2", "start": 11, "end": 17},
    "label": 1,
}


def karpathy(*names: str) -> str:
    images = [
        {"imgid": n, "filename": name, "split": "train", "sentences": [{"raw": "x", "sentid": n}]}
        for n, name in enumerate(names)
    ]
    return json.dumps({"images": images})


def reason(path: Path, out: Path, name: str | None = None, images: Path | None = None) -> str:
    """What the conversion says; nothing is written."""
    with pytest.raises(DataError) as caught:
        convert(path, out, name, images)
    assert not out.exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("out") / "out.jsonl"


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> Callable[[Rows], None]:
    """A function that registers a format ``odd`` with the given rows, which fits every path."""

    def register(rows: Rows) -> None:
        class Odd(Format):
            name = "odd"

            def detect(self, path: Path) -> bool:
                return True

            def rows(self, path: Path) -> Iterator[SourceRow]:
                return rows(path)

        monkeypatch.setitem(formats._components, "odd", Odd())

    return register


def after_two_rows(error: Exception) -> Rows:
    def rows(path: Path) -> Iterator[SourceRow]:
        for number in (1, 2):
            yield SourceRow("odd.tsv", number, {**ROW, "id": str(number)})
        raise error

    return rows


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("not enough\nvalues"), "(ValueError: not enough values)"),
        (KeyError("x"), "(KeyError: 'x')"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), "(UnicodeDecodeError: 'utf-8' codec"),
        (OSError(5, "Input/output error", "x"), "(OSError: [Errno 5] Input/output error: 'x')"),
        (RuntimeError(), "(RuntimeError)"),
    ],
)
def test_an_exception_of_another_format_names_it_the_kind_and_the_last_row(
    tmp_path: Path, out: Path, foreign: Callable[[Rows], None], error: Exception, said: str
) -> None:
    (tmp_path / "a.png").touch()
    foreign(after_two_rows(error))
    told = reason(tmp_path, out, "odd")
    assert told.startswith(f"odd.tsv, line 2: after this row the format odd fails {said}")


def test_an_exception_before_the_first_row_names_the_data_set(
    tmp_path: Path, out: Path, foreign: Callable[[Rows], None]
) -> None:
    foreign(lambda path: int("x"))
    assert reason(tmp_path, out).startswith(
        f"{tmp_path}: the format odd fails (ValueError: invalid "
    )


@pytest.mark.parametrize("row", [None, 7, {"row": 1}, ("odd.tsv", 1, "text"), ("odd.tsv", 1, None)])
def test_what_is_no_row_is_told(
    tmp_path: Path, out: Path, foreign: Callable[[Rows], None], row: Any
) -> None:
    foreign(lambda path: iter([row]))
    assert "the format odd fails (" in reason(tmp_path, out, "odd")


def test_recursion_without_end_is_told(
    tmp_path: Path, out: Path, foreign: Callable[[Rows], None]
) -> None:
    foreign(after_two_rows(RecursionError("maximum recursion depth")))
    (tmp_path / "a.png").touch()
    said = "after this row what the format odd reads is nested too deeply (RecursionError)"
    assert reason(tmp_path, out, "odd") == f"odd.tsv, line 2: {said}"


def test_a_format_that_cannot_look_is_named_and_another_one_can_be_given(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Blind:
        pass

    monkeypatch.setitem(formats._components, "blind", Blind())
    (tmp_path / "manifest.jsonl").write_text(json.dumps(ROW) + "\n")
    assert "the format blind fails (AttributeError: " in reason(tmp_path, out)
    assert convert(tmp_path, out, "manifest").pairs == 1


def test_the_command_prints_one_sentence_and_exits_with_1(
    tmp_path: Path,
    out: Path,
    foreign: Callable[[Rows], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    foreign(lambda path: 1 / 0)
    assert main([str(tmp_path), str(out), "--format", "odd"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"data_error: {tmp_path}: the format odd fails (ZeroDivisionError")
    assert said.count("\n") == 1


@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "manifest.jsonl", "manifest.parquet"])
@pytest.mark.parametrize("kind", ["folder", "dangling", "circle", "pipe"])
def test_what_is_no_file_beside_the_data_is_passed_over(
    tmp_path: Path, out: Path, name: str, kind: str
) -> None:
    (tmp_path / "d.json").write_text(karpathy("a.png"))
    (tmp_path / "a.png").touch()
    if kind == "folder":
        (tmp_path / name).mkdir()
    elif kind == "pipe":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to("none" if kind == "dangling" else name)
    assert convert(tmp_path, out).format == "karpathy"


@pytest.mark.parametrize("name", ["x.json", "x.jsonl"])
def test_a_deeply_nested_file_beside_the_data_is_passed_over(
    tmp_path: Path, out: Path, name: str
) -> None:
    (tmp_path / "d.json").write_text(karpathy("a.png"))
    (tmp_path / "a.png").touch()
    (tmp_path / name).write_text(DEEP)
    assert convert(tmp_path, out).format == "karpathy"


@pytest.mark.parametrize("name", [None, *NAMES])
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_a_deeply_nested_file_is_told_by_every_format(
    tmp_path: Path, out: Path, name: str | None, suffix: str
) -> None:
    (tmp_path / f"x{suffix}").write_text('{"a": ' + DEEP + "\n")
    told = reason(tmp_path / f"x{suffix}", out, name)
    # A folder is what the digits are in.
    assert ("manifest.jsonl" if name == "digits" else f"x{suffix}") in told


def test_deeply_nested_captions_are_told(tmp_path: Path, out: Path) -> None:
    text = karpathy("a.png")
    (tmp_path / "d.json").write_text(text[:-1] + ', "x": ' + DEEP)
    assert reason(tmp_path, out) == "d.json: expected JSON that is not nested so deeply"


@pytest.mark.parametrize("first", [True, False])
def test_a_deeply_nested_row_is_told_with_its_line(
    tmp_path: Path, out: Path, *, first: bool
) -> None:
    before = "" if first else json.dumps(ROW) + "\n"
    (tmp_path / "manifest.jsonl").write_text(before + '{"id": ' + DEEP + "\n")
    assert reason(tmp_path, out).startswith(f"manifest.jsonl, line {1 if first else 2}: ")


def test_a_parquet_with_text_that_is_no_utf_8_is_told_with_the_row_before(
    tmp_path: Path, out: Path
) -> None:
    good = 4096  # rows of one batch
    table = {key: [value] * good + ["x"] for key, value in ROW.items()} | {
        "id": [str(number) for number in range(good + 1)],
        "split": ["train"] * (good + 1),
        "image": ["a.png"] * (good + 1),
    }
    columns = {key: pa.array(values) for key, values in table.items()}
    broken = pa.array([b"one"] * good + [b"\xff"], pa.binary())
    columns["text"] = pa.Array.from_buffers(pa.string(), good + 1, broken.buffers())
    pq.write_table(pa.table(columns), tmp_path / "manifest.parquet")
    told = reason(tmp_path, out)
    assert told.startswith("manifest.parquet: a text in one of the rows after row 4096 is not UTF")


@pytest.mark.parametrize("path", ["none", "none/below", "a.png/below", "dangling"])
@pytest.mark.parametrize("name", [None, *NAMES])
def test_a_path_where_nothing_is_is_told_alike_for_every_format(
    tmp_path: Path, out: Path, name: str | None, path: str
) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "dangling").symlink_to("none")
    assert reason(tmp_path / path, out, name) == f"{tmp_path / path}: no such folder or file"


def test_a_path_that_cannot_be_is_told(tmp_path: Path, out: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    assert "it cannot be read: Too many levels" in reason(tmp_path / "circle", out)
    assert "it cannot be read: File name too long" in reason(tmp_path / ("x" * 300), out)
    (tmp_path / "d.json").write_text(karpathy("a.png"))
    long = tmp_path / ("x" * 300)
    assert "it cannot be read: File name too long" in reason(tmp_path, out, None, long)


def test_a_file_that_may_not_be_read_is_told(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root, as whom tests may run, may read everything.
    monkeypatch.setattr("engine.data.formats.os.access", lambda path, mode: False)
    assert "it may not be read: its permissions forbid it" in reason(tmp_path, out)


def test_an_image_behind_a_link_out_of_the_root_is_refused_as_a_training_would(
    tmp_path: Path, out: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.png").touch()
    root = tmp_path / "set"
    root.mkdir()
    (root / "a.png").touch()
    (root / "b.png").symlink_to("../elsewhere/b.png")
    (root / "d.json").write_text(karpathy("a.png", "b.png"))
    assert reason(root, out) == (
        f"d.json, images[1]: b.png leads by a link to {tmp_path}/elsewhere/b.png; links out of the "
        f"root {root} are not followed: copy or move the images below it, or give the folder that "
        "holds them by --images"
    )
    manifest = out.with_name("manifest.jsonl")
    row = {**ROW, "image": "b.png"}
    manifest.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match="leaves the data set's root"):
        load_dataset(DataSpec(manifest=manifest, root=root)).items.load("b.png")


def test_what_the_refusal_of_a_link_names_is_enough(tmp_path: Path, out: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").touch()
    root = tmp_path / "set"
    root.mkdir()
    (root / "a.png").symlink_to("../elsewhere/a.png")
    (root / "d.json").write_text(karpathy("a.png"))
    assert "a.png leads by a link" in reason(root, out)
    assert convert(root, out, images=tmp_path / "elsewhere").pairs == 1
    (root / "a.png").unlink()
    (root / "a.png").touch()
    assert convert(root, out).pairs == 1


def test_a_link_that_stays_below_the_root_is_followed(tmp_path: Path, out: Path) -> None:
    (tmp_path / "b.png").touch()
    (tmp_path / "a.png").symlink_to("b.png")
    (tmp_path / "d.json").write_text(karpathy("a.png"))
    assert convert(tmp_path, out).pairs == 1


def test_a_root_that_is_a_link_itself_is_followed(tmp_path: Path, out: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.png").touch()
    (tmp_path / "set" / "d.json").write_text(karpathy("a.png"))
    (tmp_path / "link").symlink_to("set")
    assert convert(tmp_path / "link", out).root == tmp_path / "link"


def test_a_shard_or_manifest_behind_a_link_is_told_what_to_do(
    tmp_path: Path, out: Path, write_tar: Callable[[Path, list[tuple[str, bytes]]], Path]
) -> None:
    write_tar(tmp_path / "blobs" / "0", [("a.jpg", b""), ("a.txt", b"x")])
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train-0.tar").symlink_to("../blobs/0")
    told = reason(tmp_path / "set", out)
    assert told.startswith(f"train-0.tar::a: train-0.tar::a.jpg leads by a link to {tmp_path}/blob")
    assert told.endswith("are not followed: copy or move the files below it")


def test_links_in_a_circle_and_links_to_nothing_are_told(tmp_path: Path, out: Path) -> None:
    (tmp_path / "d.json").write_text(karpathy("a.png"))
    (tmp_path / "a.png").symlink_to("a.png")
    assert reason(tmp_path, out).startswith("d.json, images[0]: a.png cannot be opened (")
    (tmp_path / "a.png").unlink()
    (tmp_path / "a.png").symlink_to("none.png")
    assert "images[0]: a.png: no such file below the data set's root" in reason(tmp_path, out)


@pytest.mark.parametrize("image", ["../a.png", "/a.png", "x\0.png", "x//a.png", "x" * 300, "no"])
def test_a_reference_of_another_format_that_no_training_opens_is_told_with_its_line(
    tmp_path: Path, out: Path, foreign: Callable[[Rows], None], image: str
) -> None:
    foreign(lambda path: iter([SourceRow("odd.tsv", 7, {**ROW, "image": image})]))
    assert reason(tmp_path, out, "odd").startswith("odd.tsv, line 7: ")


def test_images_behind_a_link_to_a_folder_are_missing_for_that_reason(
    tmp_path: Path, out: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").touch()
    root = tmp_path / "set"
    (root / "deep").mkdir(parents=True)
    (root / "d.json").write_text(karpathy("a.png"))
    assert reason(root, out).endswith("holds it")
    (root / "deep" / "images").symlink_to("../../elsewhere")
    told = reason(root, out)
    assert told.startswith("d.json, images[0]: the image 'a.png' is missing: ")
    assert "links to folders are not followed, and below the root deep/images is one" in told
    assert convert(root, out, images=root / "deep" / "images").pairs == 1


def test_a_manifest_may_lie_apart_from_its_root(tmp_path: Path, out: Path) -> None:
    (tmp_path / "manifest.jsonl").write_text(json.dumps(ROW) + "\n")
    assert convert(tmp_path, out).pairs == 1


@pytest.fixture
def pgr(graph_root: Path, write_lines: WriteLines) -> Path:
    write_lines("pairs.jsonl", [PAIR, {**PAIR, "id": "p1"}])
    return graph_root


def test_pairs_with_their_graphs_are_converted(pgr: Path, out: Path) -> None:
    assert convert(pgr, out).pairs == 2


def test_graphs_without_the_texts_of_their_nodes_are_told(pgr: Path, out: Path) -> None:
    (pgr / "graph" / "nodes.tsv").unlink()
    expected = "pairs.jsonl, line 1: graph/nodes.tsv: no such file below the data set's root"
    assert reason(pgr, out) == expected


def test_graphs_that_are_no_npz_are_told(pgr: Path, out: Path) -> None:
    (pgr / "graph" / "subgraphs_1hop.npz").write_bytes(b"no archive")
    assert "graph/subgraphs_1hop.npz: expected an npz file" in reason(pgr, out)


def test_arrays_of_another_form_are_told(
    pgr: Path, out: Path, graph_arrays: dict[str, np.ndarray]
) -> None:
    arrays = {**graph_arrays, "pair_id": np.array("p0")}
    np.savez(pgr / "graph" / "subgraphs_1hop.npz", **arrays)
    assert "graph/subgraphs_1hop.npz::p0 cannot be opened (TypeError: " in reason(pgr, out)


def test_a_pair_without_its_graph_is_told_with_its_line(
    pgr: Path, out: Path, write_lines: WriteLines
) -> None:
    write_lines("pairs.jsonl", [PAIR, {**PAIR, "id": "p9"}])
    assert reason(pgr, out) == (
        "pairs.jsonl, line 2: graph/subgraphs_1hop.npz::p9: the graph file has no subgraph 'p9'"
    )


def test_graphs_behind_a_link_out_of_the_root_are_refused(
    pgr: Path, out: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    nodes = pgr / "graph" / "nodes.tsv"
    nodes.rename(tmp_path_factory.mktemp("elsewhere") / "nodes.tsv")
    nodes.symlink_to(next(tmp_path_factory.getbasetemp().glob("elsewhere*/nodes.tsv")))
    assert "graph/nodes.tsv leads by a link to " in reason(pgr, out)


def test_graphs_are_opened_once(pgr: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    load = np.load
    monkeypatch.setattr(np, "load", lambda *given, **more: opened.append(1) or load(*given, **more))
    convert(pgr, out)
    assert opened == [1]


def test_a_data_set_is_recognised_whatever_the_case_of_its_suffixes(
    tmp_path: Path,
    write_lines: WriteLines,
    write_tar: Callable[[Path, list[tuple[str, bytes]]], Path],
) -> None:
    for folder in ("karpathy", "webdataset", "manifest", "snli_ve", "nlvr2"):
        (tmp_path / folder).mkdir()
    (tmp_path / "karpathy" / "D.JSON").write_text(karpathy("a.png"))
    write_tar(tmp_path / "webdataset" / "train" / "0.TAR", [("a.jpg", b""), ("a.txt", b"x")])
    write_lines("manifest/manifest.JSONL", [ROW])
    write_lines("snli_ve/dev.JSONL", [{"gold_label": "neutral", "Flickr30K_ID": "1"}])
    write_lines("nlvr2/dev.JSON", [{"identifier": "a", "sentence": "b", "label": "True"}])
    for folder in tmp_path.iterdir():
        assert detect_format(folder).name == folder.name
        for file in folder.rglob("*.*"):
            assert detect_format(file).name == folder.name
