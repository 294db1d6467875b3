"""Unimodal encodings of a model that does not change, computed on first use and kept."""

from collections.abc import Callable

import torch
from torch import Tensor

from engine.buffers import MEMORY_LIMIT, allocate
from engine.families.base import Encoding

BATCH = 128
"""Rows that are encoded at once."""


class FrozenEncodings:
    """The encodings of N items or N texts.

    Args:
        rows: N.
        encode: encoder of rows ``(B,)``, called once for every row.
        limit: bytes up to which the tokens are kept in memory; larger ones are mapped from a file.
    """

    def __init__(
        self, rows: int, encode: Callable[[Tensor], Encoding], limit: int = MEMORY_LIMIT
    ) -> None:
        self._rows = rows
        self._encode = encode
        self._limit = limit
        self._known = torch.zeros(rows, dtype=torch.bool)
        self._tokens: Tensor | None = None
        self._mask = torch.zeros(rows, 0, dtype=torch.bool)
        self._pooled = torch.zeros(rows, 0)

    def take(self, rows: Tensor, device: torch.device) -> Encoding:
        """Return encodings of ``rows`` ``(B,)``, cut to the longest, without gradient."""
        self._fill(rows)
        if self._tokens is None:
            return self._encode(rows)
        mask = self._mask[rows]
        longest = int(mask.sum(1).max()) if len(rows) else 1
        tokens = self._tokens[rows, :longest]
        return Encoding(
            tokens.to(device), mask[:, :longest].to(device), self._pooled[rows].to(device)
        )

    def _fill(self, rows: Tensor) -> None:
        missing = rows[~self._known[rows]].unique()
        for part in missing.split(BATCH):
            if len(part):
                self._keep(part, self._encode(part))

    def _keep(self, rows: Tensor, made: Encoding) -> None:
        tokens = made.tokens.cpu()
        self._widen(tokens)
        if self._tokens is not None:
            self._tokens[rows, : tokens.shape[1]] = tokens
        self._mask[rows, : tokens.shape[1]] = made.mask.bool().cpu()
        self._pooled[rows] = made.pooled.cpu()
        self._known[rows] = True

    def _widen(self, tokens: Tensor) -> None:
        """Make room for more tokens a row: a later text may be longer than all before it."""
        length, width = tokens.shape[1:]
        if self._tokens is None:
            self._tokens = allocate((self._rows, length, width), tokens.dtype, self._limit)
            self._mask = torch.zeros(self._rows, length, dtype=torch.bool)
            self._pooled = torch.zeros(self._rows, width, dtype=tokens.dtype)
        present = self._tokens.shape[1]
        if length > present:
            wider = allocate((self._rows, length, width), tokens.dtype, self._limit)
            wider[:, :present] = self._tokens
            self._tokens = wider
            extra = torch.zeros(self._rows, length - present, dtype=torch.bool)
            self._mask = torch.cat([self._mask, extra], dim=1)
