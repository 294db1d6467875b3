"""Where deleted pairs end under the aim ``calibrated``: at held-out pairs of the same standing."""

import torch
from torch import Tensor

from engine.errors import InvalidSpec
from engine.unlearning import Unlearning

CHUNK = 256
"""Pairs that the teacher scores at once."""


def held_out_alike(run: Unlearning, draws: int) -> Tensor:
    """Return for each deleted pair the held-out pairs that stand where it stands.

    The teacher scores deleted and validation pairs; a deleted pair at some quantile of the scores
    of D_f goes to the validation pairs around the same quantile of theirs, so that the scores of
    all deleted pairs get the distribution of pairs that were never seen. With labels, quantiles
    are taken within a label.

    Args:
        run: the unlearning run.
        draws: K, held-out pairs of each deleted pair.

    Returns:
        Rows ``(K * F,)`` of validation pairs, draw by draw.

    Raises:
        InvalidSpec: there is no validation pair.
    """
    if not len(run.validation):
        raise InvalidSpec(
            "the objective calibrated moves deleted pairs to where held-out pairs are, and the data "
            "set has no validation pairs; give it some, or choose the objective decouple"
        )
    deleted, held_out = _scores(run, run.forget), _scores(run, run.validation)
    labels, other_labels = run.inputs.labels[run.forget], run.inputs.labels[run.validation]
    chosen = torch.empty(draws, len(run.forget), dtype=torch.int64)
    for label in labels.unique():
        mine = (labels == label).nonzero().flatten()
        theirs = (other_labels == label).nonzero().flatten()
        if not len(theirs):
            theirs = torch.arange(len(run.validation))
        order = theirs[held_out[theirs].argsort(stable=True)]
        places = quantiles(deleted[mine], draws, len(order))
        chosen[:, mine] = run.validation[order[places]]
    return chosen.flatten()


def quantiles(scores: Tensor, draws: int, size: int) -> Tensor:
    """Return the K places, among ``size`` ordered ones, at the quantiles of ``scores`` ``(n,)``.

    Score number r of n, in ascending order, covers the quantiles r / n to (r + 1) / n; its places
    ``(K, n)`` are spread evenly over them.
    """
    ranks = scores.argsort(stable=True).argsort(stable=True)
    offsets = (torch.arange(draws) + 0.5) / draws
    shares = (ranks[None] + offsets[:, None]) / len(scores)
    return (shares * size).long().clamp(max=size - 1)


def _scores(run: Unlearning, rows: Tensor) -> Tensor:
    parts = []
    with torch.no_grad():
        for part in rows.split(CHUNK):
            run.monitor.check()
            parts.append(run.task.scores(run.teacher, run.inputs, part).double().cpu())
    return torch.cat(parts)
