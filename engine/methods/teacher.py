"""The original as the teacher of MultiDelete: each of its outputs is computed once and kept."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from engine.buffers import allocate
from engine.families.base import Fused, PairModel
from engine.inputs import Inputs
from engine.shares import fused

CHUNK = 256
"""Pairs in one pass of the teacher, which bounds its memory."""


class Teacher:
    """Outputs of a frozen model. Use it within ``inputs.freeze(model)``.

    Args:
        model: the original f, in evaluation mode.
        inputs: its prepared pairs; rows index them.
        check: called between passes; raises when the run must stop.
    """

    def __init__(self, model: PairModel, inputs: Inputs, check: Callable[[], None]) -> None:
        self.model = model
        self.inputs = inputs
        self._check = check
        self._known = torch.zeros(len(inputs), dtype=torch.bool)
        self._readouts: Tensor | None = None

    def readouts(self, rows: Tensor) -> Tensor:
        """Return R(f(I, T)) ``(B, r)`` of true pairs ``rows`` ``(B,)``, computed on first use."""
        missing = rows[~self._known[rows]].unique()
        if len(missing):
            made = self.combined(missing, missing).readout.cpu()
            if self._readouts is None:
                self._readouts = allocate((len(self.inputs), made.shape[1]), made.dtype)
            self._readouts[missing] = made
            self._known[missing] = True
        if self._readouts is None:
            return torch.zeros(0, 0, device=self.model.device)
        return self._readouts[rows].to(self.model.device)

    @torch.no_grad()
    def combined(self, items_of: Tensor, texts_of: Tensor) -> Fused:
        """Return f_M(I_p, T_q) of items of pairs ``items_of`` with texts of ``texts_of``, ``(B,)``."""
        parts = [
            fused(self.model, *self.inputs.encode_across(self.model, p, q))
            for p, q in self._chunks(items_of, texts_of)
        ]
        return Fused(
            torch.cat([part.readout for part in parts]), torch.cat([part.logits for part in parts])
        )

    @torch.no_grad()
    def cosines(self, items_of: Tensor, texts_of: Tensor) -> Tensor:
        """Return cos(I_p, T_q) ``(B,)`` of the same combinations, for families that rank by it."""
        parts = []
        for p, q in self._chunks(items_of, texts_of):
            items, texts = self.model.project(*self.inputs.encode_across(self.model, p, q))
            parts.append((items * texts).sum(dim=1))
        return torch.cat(parts)

    @torch.no_grad()
    def similarities(self, rows: Tensor) -> Tensor:
        """Return the cosines ``(B, B)`` of every item with every text of pairs ``rows``."""
        items, texts = self.model.project(*self.inputs.encode(self.model, rows))
        return items @ texts.T

    @torch.no_grad()
    def unimodal(self, rows: Tensor) -> Tensor:
        """Return [f_V(I); f_L(T)] ``(B, d)`` of pairs ``rows`` ``(B,)``."""
        return torch.cat(self.encoded(rows), dim=1)

    @torch.no_grad()
    def encoded(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return f_V(I) ``(B, d)`` and f_L(T) ``(B, d')`` of pairs ``rows`` ``(B,)``."""
        parts = [self.inputs.encode(self.model, part) for part, _ in self._chunks(rows, rows)]
        items, texts = zip(*((item.pooled, text.pooled) for item, text in parts), strict=True)
        return torch.cat(items), torch.cat(texts)

    @torch.no_grad()
    def projected(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return unit vectors ``(B, p)`` of items and of texts, for families that rank by them."""
        chunks = self._chunks(rows, rows)
        parts = [self.model.project(*self.inputs.encode(self.model, part)) for part, _ in chunks]
        items, texts = zip(*parts, strict=True)
        return torch.cat(items), torch.cat(texts)

    def _chunks(self, items_of: Tensor, texts_of: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        for p, q in zip(items_of.split(CHUNK), texts_of.split(CHUNK), strict=True):
            self._check()
            yield p, q
