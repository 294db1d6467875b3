"""Where each deleted pair shall end: K pairs as the teacher sees them, kept as mean and spread.

The loss of MultiDelete is a mean over the K pairs of squared distances, and
mean_k |x - t_k|^2 = |x - mean(t)|^2 + mean_k |t_k - mean(t)|^2. So a step needs the mean and the
spread alone, and costs the same whatever K is.
"""

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


def distinct(rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
    """Return items and texts ``(N,)`` of the distinct combinations, and where each draw is ``(K * F,)``."""
    found, where = torch.stack(rows).unique(dim=1, return_inverse=True)
    return found[0], found[1], where


def targets(values: Tensor, where: Tensor, weights: Tensor) -> Targets:
    """Return the targets of F deleted pairs.

    Args:
        values: of the teacher for N combinations ``(N, ...)``.
        where: the combination of each draw ``(K * F,)``, draw by draw.
        weights: of each draw ``(K, F)``, which add up to 1 for each deleted pair.
    """
    places = where.view(weights.shape)
    shares = weights.to(values.device, values.dtype)
    mean = torch.zeros_like(values[places[0]])
    # One by one: K times F readouts at once may be more than fits.
    for place, share in zip(places, shares, strict=True):
        mean += values[place] * _like(share, values)
    spread = mean.new_zeros(len(mean))
    for place, share in zip(places, shares, strict=True):
        spread += share * (values[place] - mean).square().view(len(mean), -1).mean(dim=1)
    return Targets(mean, spread)


def _like(share: Tensor, values: Tensor) -> Tensor:
    """Give ``share`` ``(F,)`` as many dimensions as ``values`` ``(F, ...)``."""
    return share.view(-1, *[1] * (values.ndim - 1))


def equal_weights(draws: int, deleted: int) -> Tensor:
    """Return the weights ``(K, F)`` of draws that all count the same."""
    return torch.full((draws, deleted), 1 / draws)


def balanced_weights(classes: Tensor, draws: int) -> Tensor:
    """Return weights ``(K, F)`` by which each class counts the same for each deleted pair.

    A pair whose parts do not belong together has no label, and what it is for a model should favour
    none; but where 73 of 100 training pairs have one label, so have the predictions on unrelated
    pairs.

    Args:
        classes: what the teacher predicts of the K pairs of F deleted ones ``(K * F,)``, draw by draw.
        draws: K.
    """
    found = classes.view(draws, -1)
    weights, present = torch.zeros(found.shape), torch.zeros(found.shape[1])
    for label in found.unique():
        mine = found == label
        count = mine.sum(dim=0)
        weights += mine / count.clamp(min=1)
        present += count > 0
    return weights / present


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
