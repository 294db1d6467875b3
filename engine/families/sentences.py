"""Sentence vectors of BERT: the mean over the tokens of the last layer.

A frozen encoder reads thousands of node texts in every run on the same graph, minutes of work on
a CPU. With the environment variable `CACHE_VARIABLE` set, their vectors are kept in that folder,
addressed by encoder and texts. Texts of pairs are not kept, since a deletion would have to reach
them; benchmarks on published data set `PAIRS_VARIABLE`, and have them kept as well.
"""

import hashlib
import os
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import BertModel

from engine.buffers import allocate
from engine.families import pretrained
from engine.tokenizers import TextTokenizer, TokenBatch

BATCH = 64
CACHE_VARIABLE = "LETHE_CACHE_DIR"
PAIRS_VARIABLE = "LETHE_CACHE_PAIRS"


def bert_tokens(bert: BertModel, batch: TokenBatch) -> Tensor:
    """Return the tokens ``(B, L, d)`` of the last layer."""
    mask = batch.mask.long()
    tokens: Tensor = bert(input_ids=batch.ids, attention_mask=mask).last_hidden_state
    return tokens


def mean_of(tokens: Tensor, mask: Tensor) -> Tensor:
    """Return the mean ``(B, d)`` of the tokens ``(B, L, d)`` where ``mask`` ``(B, L)``."""
    weight = mask.to(tokens.dtype).unsqueeze(-1)
    return (tokens * weight).sum(1) / weight.sum(1)


class FrozenEncoder:
    """A pretrained BERT that is never trained and belongs to no model: one a process and folder."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = TextTokenizer.load(folder)
        self.bert = pretrained.load_bert(folder)
        self.bert.requires_grad_(requires_grad=False)
        self.width: int = self.bert.config.hidden_size
        self.sha256 = pretrained.digest(folder)

    @torch.no_grad()
    def embed(self, texts: Sequence[str], max_tokens: int, device: torch.device) -> Tensor:
        """Return vectors ``(N, width)`` on the CPU; texts of like length share a batch."""
        table = self.tokenizer.encode(texts, max_tokens)
        vectors = allocate((len(texts), self.width), torch.float32)
        nn.Module.to(self.bert, device)
        for rows in table.lengths.argsort(stable=True).split(BATCH):
            batch = table.take(rows, device)
            vectors[rows] = mean_of(bert_tokens(self.bert, batch), batch.mask).cpu()
        return vectors

    def embed_pairs(self, texts: Sequence[str], max_tokens: int, device: torch.device) -> Tensor:
        """As `embed`, for texts of pairs; see the module for when their vectors are kept."""
        kept = bool(os.environ.get(PAIRS_VARIABLE))
        return (self.embed_shared if kept else self.embed)(texts, max_tokens, device)

    def embed_shared(self, texts: Sequence[str], max_tokens: int, device: torch.device) -> Tensor:
        """As `embed`, for texts that belong to no pair: the vectors are kept for later runs."""
        folder = os.environ.get(CACHE_VARIABLE)
        if not folder:
            return self.embed(texts, max_tokens, device)
        key = hashlib.sha256(f"{self.sha256} {max_tokens} {device.type}".encode())
        for text in texts:
            key.update(hashlib.sha256(text.encode()).digest())
        path = Path(folder) / f"vectors-{key.hexdigest()}.safetensors"
        if not path.is_file():
            _store(self.embed(texts, max_tokens, device), path)
        return load_file(path)["vectors"]


def _store(vectors: Tensor, path: Path) -> None:
    """Write at once under the final name, so that another process never reads half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        draft = Path(folder) / path.name
        save_file({"vectors": vectors}, draft)
        draft.rename(path)


@lru_cache(maxsize=2)
def frozen_encoder(folder: Path) -> FrozenEncoder:
    """Return the encoder of ``folder``, loaded once a process."""
    return FrozenEncoder(folder)
