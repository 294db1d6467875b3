"""Subgraphs of many pairs in flat arrays, and the batches that a GCN reads."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.data.items import GraphItem
from engine.errors import DataError


@dataclass(frozen=True)
class GraphTable:
    """The subgraphs of N pairs over M distinct nodes.

    Attributes:
        texts: text of each distinct node.
        nodes: ``(sum n,)`` which distinct node each local node is.
        node_starts: ``(N + 1,)`` where each graph's nodes start in ``nodes``.
        edges: ``(2, sum E)`` local node numbers.
        edge_starts: ``(N + 1,)`` where each graph's edges start in ``edges``.
    """

    texts: list[str]
    nodes: Tensor
    node_starts: Tensor
    edges: Tensor
    edge_starts: Tensor

    def take(self, rows: Tensor) -> "GraphBatch":
        """Join the graphs of ``rows`` ``(B,)`` into one graph of B components."""
        places, owner, firsts = _slices(self.node_starts, rows)
        edge_places, edge_owner, _ = _slices(self.edge_starts, rows)
        edges = self.edges[:, edge_places] + firsts[edge_owner]
        return GraphBatch(self.nodes[places], edges, owner, firsts)

    def __len__(self) -> int:
        return len(self.node_starts) - 1


@dataclass(frozen=True)
class GraphBatch:
    """B graphs as one.

    Attributes:
        nodes: ``(n,)`` which distinct node each node is.
        edges: ``(2, E)`` between those n nodes, in both directions.
        owner: ``(n,)`` which of the B graphs a node belongs to.
        firsts: ``(B,)`` the first node of each graph; it and the next one are the two entities.
    """

    nodes: Tensor
    edges: Tensor
    owner: Tensor
    firsts: Tensor

    def to(self, device: torch.device) -> "GraphBatch":
        """Return the batch on ``device``."""
        parts = (self.nodes, self.edges, self.owner, self.firsts)
        return GraphBatch(*(part.to(device) for part in parts))


def _slices(starts: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return places of the entries of ``rows``, the batch row of each, each row's start."""
    lengths = starts[rows + 1] - starts[rows]
    owner = torch.repeat_interleave(torch.arange(len(rows)), lengths)
    firsts = lengths.cumsum(0) - lengths
    places = torch.arange(int(lengths.sum())) - firsts[owner] + starts[rows][owner]
    return places, owner, firsts


def graph_table(graphs: Sequence[Any]) -> GraphTable:
    """Collect `GraphItem` objects; equal node ids are one distinct node.

    Raises:
        DataError: an item is no graph, or one node id has two texts.
    """
    known: dict[int, int] = {}
    texts: list[str] = []
    nodes, edges = [], []
    for graph in graphs:
        if not isinstance(graph, GraphItem):
            raise DataError(
                f"a subgraph was expected, and the data set gave {type(graph).__name__}"
            )
        nodes.append(_number(graph, known, texts))
        edges.append(torch.from_numpy(np.asarray(graph.edges, dtype=np.int64)).view(2, -1))
    return GraphTable(
        texts,
        torch.cat(nodes) if nodes else torch.zeros(0, dtype=torch.int64),
        _starts(len(n) for n in nodes),
        torch.cat(edges, dim=1) if edges else torch.zeros(2, 0, dtype=torch.int64),
        _starts(e.shape[1] for e in edges),
    )


def _number(graph: GraphItem, known: dict[int, int], texts: list[str]) -> Tensor:
    """Return which distinct node each node of ``graph`` is; new ones get the next number."""
    numbers = []
    for node, text in zip(graph.nodes.tolist(), graph.texts, strict=True):
        number = known.setdefault(node, len(texts))
        if number == len(texts):
            texts.append(text)
        elif texts[number] != text:
            raise DataError(f"node {node} has two texts; give every node id one text")
        numbers.append(number)
    return torch.tensor(numbers, dtype=torch.int64)


def _starts(lengths: Iterable[int]) -> Tensor:
    counted = torch.tensor([0, *lengths], dtype=torch.int64)
    return counted.cumsum(0)
