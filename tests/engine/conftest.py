"""Two small data sets on the disk, in the layouts that users have."""

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch

from engine.data.digits import write_digits
from engine.data.manifest import load_dataset
from engine.data.pairs import PairDataset
from engine.families import PairModel, families
from engine.spec import DataSpec

WORDS = ("binds", "blocks", "feeds", "holds", "joins", "kills", "lifts", "moves")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def image_data(tmp_path_factory: pytest.TempPathFactory) -> PairDataset:
    """60 scans-of-digits images with captions."""
    root = tmp_path_factory.mktemp("digits") / "digits"
    write_digits(root, pairs=60, seed=1)
    return load_dataset(DataSpec(manifest=root / "manifest.jsonl", root=root))


@pytest.fixture(scope="session")
def graph_files(tmp_path_factory: pytest.TempPathFactory) -> DataSpec:
    """40 subgraphs of 2 to 6 nodes; the label says whether the text's verb has an even number."""
    root = tmp_path_factory.mktemp("graphs")
    (root / "graph").mkdir()
    lines = [f"{node}\tN{node}\tnode about {WORDS[node % 8]} {node}" for node in range(20)]
    table = "\n".join(["node\tid\ttext", *lines]) + "\n"
    (root / "graph" / "nodes.tsv").write_text(table, encoding="utf-8")
    np.savez(root / "graph" / "subgraphs.npz", **_subgraphs(40))
    rows = [json.dumps(_graph_row(number)) for number in range(40)]
    (root / "manifest.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return DataSpec(manifest=root / "manifest.jsonl", root=root)


@pytest.fixture(scope="session")
def graph_data(graph_files: DataSpec) -> PairDataset:
    return load_dataset(graph_files)


def _subgraphs(count: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    sizes = random.integers(2, 7, count)
    nodes = [random.choice(20, size, replace=False) for size in sizes]
    # A star around the first entity: node 0 has an edge to every other node.
    targets = [np.arange(1, size) for size in sizes]
    sources = [np.zeros(size - 1, dtype=np.int64) for size in sizes]
    return {
        "pair_id": np.array([f"g{number}" for number in range(count)]),
        "node_ptr": np.concatenate([[0], sizes.cumsum()]),
        "node_idx": np.concatenate(nodes),
        "edge_ptr": np.concatenate([[0], (sizes - 1).cumsum()]),
        "edge_src": np.concatenate(sources),
        "edge_dst": np.concatenate(targets),
    }


def _graph_row(number: int) -> dict[str, object]:
    split = "train" if number < 24 else "val" if number < 32 else "test"
    return {
        "id": f"g{number}",
        "graph": f"graph/subgraphs.npz::g{number}",
        "text": f"the first {WORDS[number % 8]} the other, case {number}",
        "label": number % 2,
        "split": split,
    }


@pytest.fixture
def data_for(image_data: PairDataset, graph_data: PairDataset) -> Callable[[str], PairDataset]:
    """The small data set that a family can read."""
    kinds = {"image": image_data, "graph": graph_data}
    return lambda family: kinds[families.get(family).modality]


@pytest.fixture
def tiny(data_for: Callable[[str], PairDataset]) -> Callable[..., PairModel]:
    """A function that builds the tiny model of a family."""

    def build(family: str, seed: int = 0) -> PairModel:
        kind = families.get(family)
        return kind.build(kind.tiny(), data_for(family), seed)

    return build
