"""Where each deleted pair shall end: K pairs as the teacher sees them, kept as mean and spread.

The loss of MultiDelete is a mean over the K pairs of squared distances, and
mean_k |x - t_k|^2 = |x - mean(t)|^2 + mean_k |t_k - mean(t)|^2. So a step needs the mean and the
spread alone, and costs the same whatever K is.
"""

from dataclasses import dataclass

import torch
from scipy.optimize import nnls
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
        """Return the means ``(B, ...)`` and the spreads ``(B,)`` of deleted pairs ``places``."""
        return self.mean[places], self.spread[places]


def distinct(rows: Rows) -> tuple[Tensor, Tensor, Tensor]:
    """Return items and texts ``(N,)`` of the distinct combinations, and where each draw is ``(K * F,)``."""
    found, where = torch.stack(rows).unique(dim=1, return_inverse=True)
    return found[0], found[1], where


def beside(first: Rows, second: Rows, draws: int) -> Rows:
    """Return the K draws for F pairs and those for G others as K draws for all of them, ``(K * (F + G),)``."""
    items, texts = (
        torch.cat([a.view(draws, -1), b.view(draws, -1)], dim=1).flatten()
        for a, b in zip(first, second, strict=True)
    )
    return items, texts


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


def indifferent_weights(logits: Tensor, where: Tensor, draws: int) -> Tensor:
    """Return weights ``(K, F)`` by which the mean of the draws favours no class, as far as they allow.

    A pair whose parts do not belong together has no label, but a model says one of it: nearly always
    "contradiction" where texts are about images. A student that is led there learns to say so of
    whatever it does not know, and unseen pairs near the border fall on that side. Led to where the
    teacher's mean logits are even, it becomes unsure of them and keeps what it would answer.

    Args:
        logits: of the teacher for N combinations ``(N, C)``.
        where: the combination of each draw ``(K * F,)``, draw by draw.
        draws: K.
    """
    logits = logits.double().cpu()
    drawn = where.view(draws, -1)
    weights = torch.zeros(drawn.shape)
    # One by one: K times F logits at once may be more than fits.
    for pair, places in enumerate(drawn.T):
        mine = logits[places]
        present, which, counts = mine.argmax(1).unique(return_inverse=True, return_counts=True)
        sums = mine.new_zeros(len(present), mine.shape[1]).index_add_(0, which, mine)
        weights[:, pair] = (_evening(sums / counts[:, None]) / counts)[which].float()
    return weights


def _evening(means: Tensor) -> Tensor:
    """Return shares ``(P,)``, none negative, by which rows of ``(P, C)`` add up to the evenest row."""
    apart = means - means.mean(dim=1, keepdim=True)
    # Beside "each entry 0" stands "sum of shares 1". For shares of sum 1 that leave r, the best multiple of
    # them leaves r / (1 + r): so the least r wins, and what comes out is that times a number.
    size = max(float(apart.abs().max()), torch.finfo(torch.float64).tiny)
    equations = torch.cat([apart.T / size, torch.ones(1, len(means), dtype=torch.float64)])
    wanted = torch.zeros(len(equations), dtype=torch.float64)
    wanted[-1] = 1.0
    shares = torch.from_numpy(nnls(equations.numpy(), wanted.numpy())[0])
    return shares / shares.sum()


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
