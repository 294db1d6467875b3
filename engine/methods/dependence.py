"""Conditional dependence: which columns tell something of y that the others do not.

CODEC is the coefficient T_n of Azadkia and Chatterjee (2021, "A simple measure of conditional
dependence"), and FOCI their forward selection by it. Both look at ranks and nearest neighbours
alone, and assume no form of dependence.
"""

import torch
from torch import Tensor


def codec(y: Tensor, z: Tensor, given: Tensor | None = None) -> float:
    """Return T(y, z | given): how far z says more of y than ``given`` says alone.

    Near 0 when y is independent of z given the rest, near 1 when it is a function of both; in
    small samples it may be negative (Azadkia and Chatterjee 2021, the estimator T_n).

    Args:
        y: ``(n,)``.
        z: ``(n, q)``.
        given: ``(n, p)``, or None for unconditional dependence.
    """
    ranks = (y[None] <= y[:, None]).sum(1).double()
    both = z if given is None else torch.cat([given, z], dim=1)
    least = torch.minimum(ranks, ranks[_nearest(both)])
    if given is None:
        above = (y[None] >= y[:, None]).sum(1).double()
        gained, possible = len(y) * least - above**2, above * (len(y) - above)
    else:
        without = torch.minimum(ranks, ranks[_nearest(given)])
        gained, possible = least - without, ranks - without
    # Nothing is left to explain when y is constant, or known from ``given``.
    return float(gained.sum() / possible.sum()) if possible.sum() > 0 else 0.0


def _nearest(points: Tensor) -> Tensor:
    """Return for each of the points ``(n, p)`` which other one is nearest ``(n,)``."""
    distances = (points[:, None] - points[None]).pow(2).sum(-1)
    return distances.fill_diagonal_(float("inf")).argmin(1)


def select(y: Tensor, columns: Tensor, most: int) -> list[int]:
    """Choose columns on which y depends, the most telling first (FOCI, Azadkia and Chatterjee).

    The first is always taken; a further one as long as it says more of y than those before it.

    Args:
        y: ``(n,)``.
        columns: ``(n, c)`` of comparable scales.
        most: columns to choose at most.
    """
    chosen: list[int] = []
    left = list(range(columns.shape[1]))
    while left and len(chosen) < most:
        given = columns[:, chosen] if chosen else None
        values = [codec(y, columns[:, [place]], given) for place in left]
        best = max(values)
        if chosen and best <= 0:
            break
        chosen.append(left.pop(values.index(best)))
    return chosen
