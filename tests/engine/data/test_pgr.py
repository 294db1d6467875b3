import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.data.convert import convert
from engine.data.formats import detect_format, formats
from engine.data.manifest import load_dataset
from engine.data.pgr import PgrFormat
from engine.errors import DataError
from engine.spec import DataSpec

PAIR: dict[str, Any] = {
    "id": "p0",
    "split": "dev",
    "text": "With p &lt; 1 ABC causes ataxia.",
    "gene": {"id": "G:1", "mention": "ABC", "start": 14, "end": 17, "node": 4},
    "phenotype": {"id": "HP:2", "mention": "ataxia", "start": 25, "end": 31, "node": 2},
    "label": 1,
}


def _write(root: Path, *pairs: dict[str, Any]) -> Path:
    (root / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return root


def _rows(root: Path) -> list[dict[str, Any]]:
    return [found.row for found in formats.get("pgr").rows(root)]


def test_a_pair_names_its_subgraph_and_its_entities(graph_root: Path) -> None:
    row = _rows(_write(graph_root, PAIR))[0]
    assert row["graph"] == "graph/subgraphs_1hop.npz::p0"
    assert row["item_id"] == "G:1|HP:2"
    assert (row["id"], row["label"], row["split"]) == ("p0", 1, "val")
    assert row["text"] == "With p < 1 ABC causes ataxia."


def test_pairs_of_one_sentence_share_the_text_id_and_others_do_not(graph_root: Path) -> None:
    other = {**PAIR, "id": "p1", "gene": {**PAIR["gene"], "id": "G:9"}}
    third = {**PAIR, "id": "p2", "text": PAIR["text"] + " Indeed."}
    first, second, last = (row["text_id"] for row in _rows(_write(graph_root, PAIR, other, third)))
    assert first == second != last


def test_markers_stand_around_gene_and_phenotype_in_either_order(graph_root: Path) -> None:
    swapped = {**PAIR, "id": "p1", "gene": PAIR["phenotype"], "phenotype": PAIR["gene"]}
    source = PgrFormat(markers=True).rows(_write(graph_root, PAIR, swapped))
    rows = [found.row for found in source]
    assert rows[0]["text"] == "With p < 1 [ ABC ] causes < ataxia >."
    assert rows[1]["text"] == "With p < 1 < ABC > causes [ ataxia ]."
    assert rows[0]["text_id"] != rows[1]["text_id"]


def test_markers_refuse_offsets_that_overlap(graph_root: Path) -> None:
    bad = {**PAIR, "phenotype": {**PAIR["phenotype"], "start": 15}}
    with pytest.raises(DataError, match=r"pairs\.jsonl, line 2: .*overlap"):
        list(PgrFormat(markers=True).rows(_write(graph_root, PAIR, bad)))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"split": "x"}, "the split is 'x'"),
        ({"label": 2}, "label: Input should be 0 or 1"),
        ({"gene": {}}, "gene.id"),
    ],
)
def test_a_broken_line_is_an_error_that_names_it(
    graph_root: Path, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(DataError, match=rf"pairs\.jsonl, line 2: {reason}"):
        _rows(_write(graph_root, PAIR, {**PAIR, **changes}))


def test_the_real_corpus_loads_with_its_subgraphs(real_data: Path, tmp_path: Path) -> None:
    root = real_data / "pgr"
    report = convert(root, tmp_path / "out.jsonl")
    assert (report.format, report.task, report.classes) == ("pgr", "graph_text", 2)
    assert report.splits == {"train": 2573, "val": 352, "test": 1249}
    dataset = load_dataset(DataSpec(manifest=tmp_path / "out.jsonl", root=root))
    sizes = np.array([len(dataset.items.load(pair.items[0]).nodes) for pair in dataset.pairs])
    assert (sizes.min(), sizes.max()) == (3, 67)
    assert len({pair.text_id for pair in dataset.pairs}) == 2050


def test_pairs_with_the_same_item_id_have_the_same_subgraph(
    real_data: Path, tmp_path: Path
) -> None:
    root = real_data / "pgr"
    convert(root, tmp_path / "out.jsonl")
    dataset = load_dataset(DataSpec(manifest=tmp_path / "out.jsonl", root=root))
    known: dict[str, tuple[bytes, bytes]] = {}
    for pair in dataset.pairs:
        graph = dataset.items.load(pair.items[0])
        content = (graph.nodes.tobytes(), graph.edges.tobytes())
        assert known.setdefault(pair.item_ids[0], content) == content


def test_a_file_that_is_not_utf_8_is_an_error(graph_root: Path) -> None:
    (graph_root / "pairs.jsonl").write_bytes(b'{"id": "\xff"}\n')
    with pytest.raises(DataError, match=r"pairs\.jsonl, line 1: .*unicode"):
        _rows(graph_root)


@pytest.mark.parametrize("name", [None, "pgr"])
def test_the_file_of_the_pairs_is_an_error_that_asks_for_the_folder(
    graph_root: Path, tmp_path: Path, name: str | None
) -> None:
    _write(graph_root, PAIR)
    with pytest.raises(DataError, match=r"expected the folder that holds pairs\.jsonl and graph/"):
        convert(graph_root / "pairs.jsonl", tmp_path / "out.jsonl", name)


def test_pairs_without_graphs_are_an_error_that_names_what_is_missing(graph_root: Path) -> None:
    (_write(graph_root, PAIR) / "graph" / "subgraphs_1hop.npz").unlink()
    with pytest.raises(DataError, match=r"format pgr, and graph/subgraphs_1hop\.npz is missing"):
        detect_format(graph_root)


def test_an_id_that_occurs_twice_is_named_with_both_places(graph_root: Path) -> None:
    _write(graph_root, PAIR, {**PAIR, "label": 0})
    reason = "pairs.jsonl, line 2: the id 'p0' was used in pairs.jsonl, line 1; ids must be unique"
    with pytest.raises(DataError) as refused:
        convert(graph_root, graph_root / "out.jsonl")
    assert str(refused.value) == reason
