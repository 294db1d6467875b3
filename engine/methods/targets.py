"""Where each deleted pair shall end: K pairs as the teacher sees them, kept as mean and spread.

The loss of MultiDelete is a mean over the K pairs of squared distances, and
mean_k |x - t_k|^2 = |x - mean(t)|^2 + mean_k |t_k - mean(t)|^2. So a step needs the mean and the
spread alone, and costs the same whatever K is.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.unlearning import Truths, draw, unrelated_texts

POOL = 1024
"""Most unrelated pairs of a run: the deleted pairs draw theirs from one pool, so that what the
teacher must do does not grow with |D_f|."""

Rows = tuple[Tensor, Tensor]
"""Rows ``(K * F,)`` of the items and of the texts of K pairs for each of F deleted ones."""


@dataclass(frozen=True)
class Targets:
    """K values for each of F deleted pairs.

    Attributes:
        mean: of the K values ``(F, ...)``.
        spread: mean squared distance of the values from it, over all dimensions ``(F,)``.
    """

    mean: Tensor
    spread: Tensor

    def at(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return the means ``(B, ...)`` and the mean spread of deleted pairs ``places`` ``(B,)``."""
        return self.mean[places], self.spread[places].mean()


def targets(rows: Rows, draws: int, outputs: Callable[[Tensor, Tensor], Tensor]) -> Targets:
    """Return the targets of F deleted pairs; the same combination is computed once.

    Args:
        rows: items and texts, draw by draw.
        draws: K.
        outputs: the teacher's values ``(B, ...)`` of items and texts ``(B,)``.
    """
    distinct, where = torch.stack(rows).unique(dim=1, return_inverse=True)
    values = outputs(distinct[0], distinct[1])
    places = where.view(draws, -1)
    mean = torch.zeros_like(values[places[0]])
    for place in places:  # one by one: K times F readouts at once may be more than fits
        mean += values[place] / draws
    spread = mean.new_zeros(len(mean))
    for place in places:
        spread += (values[place] - mean).square().view(len(mean), -1).mean(dim=1) / draws
    return Targets(mean, spread)


def unrelated_pairs(
    truths: Truths, forget: Tensor, pool: Tensor, draws: int, generator: torch.Generator
) -> Rows:
    """Draw K pairs (I_p, T_q), p != q, for each deleted pair: any item with any wrong text.

    Args:
        truths: the true combinations.
        forget: D_f ``(F,)``.
        pool: rows ``(P,)`` that items and texts may come from.
        draws: K.
        generator: of the draws.

    Raises:
        InvalidSpec: an item has no unrelated text.
    """
    items_of = draw(pool, min(draws * len(forget), POOL), generator)
    texts_of = unrelated_texts(truths, items_of, pool, generator)
    chosen = draw(torch.arange(len(items_of)), draws * len(forget), generator)
    return items_of[chosen], texts_of[chosen]


def anchored_pairs(
    truths: Truths, forget: Tensor, pool: Tensor, draws: int, generator: torch.Generator
) -> Rows:
    """Draw K pairs (I_i, T_q) for each deleted pair: its own item with a wrong text.

    See `unrelated_pairs`.
    """
    items_of = forget.repeat(draws)
    return items_of, unrelated_texts(truths, items_of, pool, generator)
