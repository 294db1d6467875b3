"""Which retained pairs stand nearest to each deleted pair: forgetting costs most there.

A random sample of D_r seldom holds what is close to D_f, such as other drawings of the same thing
with nearly the same words, and what is not held drifts with the deleted pairs.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from engine.methods.teacher import Teacher

NEAREST = 8
"""Pairs that count as near by each comparison, of which every step draws some."""
CHUNK = 256
"""Deleted pairs that are compared with all retained ones at once."""

Vectors = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Rows ``(B,)`` to unit vectors ``(B, d)`` of their items and ``(B, d')`` of their texts."""


def nearest(teacher: Teacher, forget: Tensor, retain: Tensor, *, across: bool) -> Tensor:
    """Return for each deleted pair the retained pairs nearest to it, by the teacher's cosines.

    Items are compared with items and texts with texts. Where a similarity ranks, in its space and
    across modalities as well.

    Args:
        teacher: the original, within `Inputs.freeze` of it.
        forget: D_f ``(F,)``.
        retain: pairs of D_r ``(P,)`` to look among.
        across: whether items and texts share a space, that of `PairModel.project`.

    Returns:
        Rows ``(F, C K)`` of ``retain``, C comparisons with K = `NEAREST` (or P, where fewer) each. A
        pair that is near in several ways stands there as often.
    """
    vectors: Vectors = teacher.projected if across else _pooled(teacher)
    kept = vectors(retain)
    comparisons = [(i, j) for i in (0, 1) for j in (0, 1) if across or i == j]
    count = min(NEAREST, len(retain))
    found = []
    for part in forget.split(CHUNK):
        deleted = vectors(part)
        near = [(deleted[i] @ kept[j].T).topk(count, dim=1).indices for i, j in comparisons]
        found.append(retain[torch.cat(near, dim=1).cpu()])
    return torch.cat(found)


def drawn(near: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw ``count`` of the near pairs ``(B, M)`` of each deleted pair, and return each drawn once."""
    order = torch.rand(near.shape, generator=generator).argsort(dim=1)
    chosen: Tensor = near.gather(1, order[:, :count]).unique()
    return chosen


def _pooled(teacher: Teacher) -> Vectors:
    """Return unit vectors of pooled encodings, for families and tasks without a common space."""

    def vectors(rows: Tensor) -> tuple[Tensor, Tensor]:
        item, text = teacher.encoded(rows)
        return functional.normalize(item, dim=1), functional.normalize(text, dim=1)

    return vectors
