"""What is divided among the processes of a run: the rows of each pass of an encoder or the fusion.

A pass treats each row on its own, so that each process computes a share of the rows and all get the
whole, with gradients. Whatever compares rows comes after that and is done by every process on all
rows: a contrastive loss, cosines of all with all, negatives, selection. So the loss of a batch is
the one that a single process computes, term by term, and no task or method has to know of it.

Gradients: every process has the same loss. Where shares are put together, the gradients that come
back from all processes are added up; their sum is as many times too large as there are processes,
and so are those of the weights that the share went through, of which each process has its part.
`engine.processes.average_gradients` makes both right: the mean of the parts, each so many times too
large, is their sum, and the mean of what every process computed in full is that itself.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.families.base import Encoding, Fused, PairModel
from engine.processes import count, highest, number, summed

_WHOLE = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_divided: ContextVar[bool] = ContextVar("divided", default=False)
_seeded: list[int] = [0, 0]
"""The seed that draws of shares were last made from, and how many shares drew since."""


@contextmanager
def dividing(*models: nn.Module) -> Iterator[None]:
    """Within the context, divide the passes of `encoded` and `fused` among the processes.

    Gradients that are taken in it must be averaged, as the training loop does. A model with batch
    normalisation looks at all rows at once, and is not divided.
    """
    alone = any(isinstance(part, _WHOLE) for model in models for part in model.modules())
    token = _divided.set(count() > 1 and not alone)
    try:
        yield
    finally:
        _divided.reset(token)


def encoded(model: PairModel, rows: Tensor, encode: Callable[[Tensor], Encoding]) -> Encoding:
    """Return the encodings of ``rows`` ``(B,)``, of which this process makes its share.

    Args:
        model: whose encoder it is.
        rows: of items or of texts.
        encode: encodes some of them.
    """
    share = _share(len(rows))
    if share is None:
        return encode(rows)
    with _own_draws(model):
        part = encode(rows[share])
    # A batch is as long as its longest text.
    more = highest(part.tokens.shape[1]) - part.tokens.shape[1]
    return Encoding(
        _whole(functional.pad(part.tokens, (0, 0, 0, more)), share, len(rows)),
        _whole(functional.pad(part.mask, (0, more)), share, len(rows)),
        _whole(part.pooled, share, len(rows)),
    )


def fused(model: PairModel, item: Encoding, text: Encoding) -> Fused:
    """Return `PairModel.fuse` of B pairs, of which this process computes its share."""
    share = _share(len(item.pooled))
    if share is None:
        return model.fuse(item, text)
    with _own_draws(model):
        part = model.fuse(item.take(share), text.take(share))
    pairs = len(item.pooled)
    return Fused(_whole(part.readout, share, pairs), _whole(part.logits, share, pairs))


def _share(rows: int) -> Tensor | None:
    """Return the places ``(b,)`` of this process among ``rows``; None: all of them, undivided."""
    if not _divided.get() or rows < count():
        return None
    return torch.arange(rows).tensor_split(count())[number()]


def _whole(part: Tensor, share: Tensor, rows: int) -> Tensor:
    """Return all ``rows`` ``(B, ...)`` from each process's ``part`` ``(b, ...)``."""
    whole: Tensor = _Joined.apply(part, share, rows)  # type: ignore[no-untyped-call]
    return whole


class _Joined(torch.autograd.Function):
    """Shares to the whole; backwards, the sum of all processes' gradients of this share."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, share: Tensor, rows: int) -> Tensor:
        ctx.share = slice(int(share[0]), int(share[-1]) + 1)
        exchanged = part.to(torch.uint8) if part.dtype == torch.bool else part
        # Adding zeros changes no value, and shares need not be of one size.
        whole = exchanged.new_zeros(rows, *part.shape[1:])
        whole[ctx.share] = exchanged
        return summed(whole).to(part.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        whole = gradients[0].clone(memory_format=torch.contiguous_format)
        return summed(whole)[ctx.share], None, None


def _own_draws(model: PairModel) -> Any:
    """Within the context, dropout draws from a stream of this process, and leaves the common one.

    Equal streams would drop the same places in every share; a common stream that shares of unequal
    size draw from would differ from process to process afterwards.
    """
    if not model.training:
        return nullcontext()
    return _forked(model.device)


@contextmanager
def _forked(device: torch.device) -> Iterator[None]:
    seed = torch.initial_seed()
    # A run that goes on after an interruption has seeded anew, and counts anew.
    _seeded[:] = [seed, _seeded[1] + 1 if _seeded[0] == seed else 1]
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(hash((seed, _seeded[1], number())) % 2**63)
        yield
