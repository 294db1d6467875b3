"""A small data set of graphs and texts, in the layout that users have."""

import json
from pathlib import Path

import numpy as np

WORDS = ("binds", "blocks", "feeds", "holds", "joins", "kills", "lifts", "moves")


def write_graphs(root: Path) -> None:
    """Write 40 subgraphs of 2 to 6 nodes; the label says whether the text's verb has an even number."""
    (root / "graph").mkdir()
    lines = [f"{node}\tN{node}\tnode about {WORDS[node % 8]} {node}" for node in range(20)]
    table = "\n".join(["node\tid\ttext", *lines]) + "\n"
    (root / "graph" / "nodes.tsv").write_text(table, encoding="utf-8")
    np.savez(root / "graph" / "subgraphs.npz", **_subgraphs(40))
    rows = [json.dumps(_graph_row(number)) for number in range(40)]
    (root / "manifest.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")


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
