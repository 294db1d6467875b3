"""Text to token ids: a tokenizer of the data set, or one that belongs to pretrained weights.

Byte-level BPE is used for own tokenizers because its training is deterministic, and because it
knows no unknown word: a caption of the test split with a new word still becomes tokens.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch import Tensor

from engine.errors import CheckpointError

PAD, CLS, SEP, MASK = "[PAD]", "[CLS]", "[SEP]", "[MASK]"
SMALLEST_VOCABULARY = 260
"""256 bytes and the four special tokens."""


@dataclass(frozen=True)
class TokenTable:
    """Token ids of many texts.

    Attributes:
        ids: ``(N, L)`` int32, padded with the tokenizer's padding id.
        lengths: ``(N,)`` int64, how many of them count; at least 1.
    """

    ids: Tensor
    lengths: Tensor

    def take(self, rows: Tensor, device: torch.device) -> "TokenBatch":
        """Return the texts of ``rows`` ``(B,)`` cut to the longest of them."""
        lengths = self.lengths[rows]
        longest = int(lengths.max()) if len(rows) else 1
        ids = self.ids[rows, :longest].long()
        mask = torch.arange(longest)[None, :] < lengths[:, None]
        return TokenBatch(ids.to(device), mask.to(device))


@dataclass(frozen=True)
class TokenBatch:
    """Token ids ``(B, L)`` int64 and mask ``(B, L)`` bool, True where a token counts."""

    ids: Tensor
    mask: Tensor


class TextTokenizer:
    """A `tokenizers.Tokenizer` that ends every text with [SEP] and starts it with [CLS]."""

    def __init__(self, backend: Tokenizer) -> None:
        backend.no_padding()
        backend.no_truncation()
        self.backend = backend
        pad = backend.token_to_id(PAD)
        if pad is None:
            raise CheckpointError(f"the tokenizer has no {PAD} token; use one of a BERT-like model")
        self.pad_id: int = pad

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""
        return int(self.backend.get_vocab_size())

    def encode(self, texts: Sequence[str], max_tokens: int) -> TokenTable:
        """Tokenise ``texts``; longer ones than ``max_tokens`` lose their end, not their [SEP]."""
        self.backend.enable_truncation(max_tokens)
        try:
            encoded = [e.ids for e in self.backend.encode_batch(list(texts))]
        finally:
            self.backend.no_truncation()
        longest = max((len(ids) for ids in encoded), default=1)
        table = torch.full((len(encoded), longest), self.pad_id, dtype=torch.int32)
        for row, ids in enumerate(encoded):
            table[row, : len(ids)] = torch.tensor(ids, dtype=torch.int32)
        return TokenTable(table, torch.tensor([len(ids) for ids in encoded], dtype=torch.int64))

    def save(self, directory: Path, max_tokens: int) -> None:
        """Write ``tokenizer.json`` and the ``tokenizer_config.json`` that transformers reads."""
        (directory / "tokenizer.json").write_text(self.backend.to_str(pretty=True), "utf-8")
        described = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": max_tokens,
            "pad_token": PAD,
            "cls_token": CLS,
            "sep_token": SEP,
            "mask_token": MASK,
        }
        text = json.dumps(described, indent=2, sort_keys=True) + "\n"
        (directory / "tokenizer_config.json").write_text(text, "utf-8")

    @classmethod
    def load(cls, directory: Path) -> "TextTokenizer":
        """Read ``tokenizer.json``; raises `CheckpointError` when it is missing or damaged."""
        path = directory / "tokenizer.json"
        try:
            # The Rust parser raises bare Exception for every kind of damage.
            return cls(Tokenizer.from_str(path.read_text("utf-8")))
        except CheckpointError:
            raise
        except Exception as error:
            raise CheckpointError(f"{path.name} cannot be read as a tokenizer: {error}") from error


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> TextTokenizer:
    """Train a lower-casing byte-level BPE on ``texts``; the same texts give the same tokenizer.

    Args:
        texts: training texts, any number.
        vocabulary: largest number of token ids, at least `SMALLEST_VOCABULARY`.
    """
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=max(vocabulary, SMALLEST_VOCABULARY),
        special_tokens=[PAD, CLS, SEP, MASK],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    ends = [(name, backend.token_to_id(name)) for name in (CLS, SEP)]
    backend.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}", pair=f"{CLS} $A {SEP} $B {SEP}", special_tokens=ends
    )
    return TextTokenizer(backend)
