"""Recall at k of two retrieval directions, and its metrics."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.spec import Metric
from engine.tasks.intervals import bootstrap_mean

DEPTHS = (1, 5, 10)
DIRECTIONS = ("ir", "tr")
Hits = NDArray[np.float64]


@dataclass(frozen=True)
class Ranking:
    """Whether a query found a right candidate among its first k.

    Attributes:
        hits: for image retrieval (queries are texts) and text retrieval (queries are images) an
            array
            ``(queries, depths)`` of 0 and 1.
        depths: the values of k.
        reranked: how many candidates of each query were ranked anew by a second score.
    """

    hits: tuple[Hits, Hits]
    depths: tuple[int, ...]
    reranked: int = 0

    @classmethod
    def of(
        cls,
        by_text: Tensor,
        right_text: Tensor,
        by_item: Tensor,
        right_item: Tensor,
        depths: Sequence[int],
    ) -> "Ranking":
        """Rank candidates by score; ``right_*`` ``(queries, candidates)`` says which are right."""
        wanted = tuple(depths)
        return cls((_hits(by_text, right_text, wanted), _hits(by_item, right_item, wanted)), wanted)

    def recalls(self) -> Hits:
        """Return recalls ``(2, depths)`` in points of 100, image retrieval first."""
        return 100 * np.stack([hits.mean(0) for hits in self.hits])


def _hits(scores: Tensor, right: Tensor, depths: tuple[int, ...]) -> Hits:
    """Count a tie against the model: an equal score of a wrong candidate comes first."""
    best = scores.masked_fill(~right, float("-inf")).max(1, keepdim=True).values
    before = ((scores >= best) & ~right).sum(1)
    return torch.stack([before < k for k in depths], dim=1).double().numpy()


def relevance(item_rows: Tensor, text_rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the distinct items, the distinct texts, and which of them belong together.

    Args:
        item_rows: ``(n,)`` item of each pair.
        text_rows: ``(n,)`` text of each pair.

    Returns:
        Item rows ``(I,)``, text rows ``(T,)`` and a bool matrix ``(I, T)``.
    """
    items, item_places = item_rows.unique(return_inverse=True)
    texts, text_places = text_rows.unique(return_inverse=True)
    right = torch.zeros(len(items), len(texts), dtype=torch.bool)
    right[item_places, text_places] = True
    return items, texts, right


def recall_metrics(ranking: Ranking | None) -> list[Metric]:
    """Return ``d_test``, then ``ir_r1`` ... ``tr_r10``; unavailable without a ranking."""
    if ranking is None:
        return [_metric(name, [], 0) for name in ("d_test", *_names(DEPTHS))]
    means = [hits.mean(1) for hits in ranking.hits]
    n = sum(len(hits) for hits in ranking.hits)
    made = [_metric("d_test", means, n, measure="mean of six recalls", reranked=ranking.reranked)]
    for direction, hits in zip(DIRECTIONS, ranking.hits, strict=True):
        for place, depth in enumerate(ranking.depths):
            name = f"{direction}_r{depth}"
            made.append(_metric(name, [hits[:, place]], len(hits), reranked=ranking.reranked))
    return made


def _names(depths: Sequence[int]) -> list[str]:
    return [f"{direction}_r{depth}" for direction in DIRECTIONS for depth in depths]


def _metric(
    name: str, groups: list[Hits], n: int, measure: str = "recall", reranked: int = 0
) -> Metric:
    """Return the mean of the groups' means in points, with a bootstrap interval over queries."""
    low, high = bootstrap_mean(groups) if groups else (0.0, 0.0)
    return Metric(
        name=name,
        moment="after",
        subset="test",
        value=100 * float(np.mean([group.mean() for group in groups])) if groups else None,
        interval=(100 * low, 100 * high) if groups else None,
        n=n,
        direction="higher",
        unit="points",
        unavailable=None if groups else "there is no pair to measure",
        details={
            "measure": measure,
            "interval": "bootstrap over queries",
            "reranked": reranked,
        },
    )
