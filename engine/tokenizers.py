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

BYTES = 256
"""Token ids that an own tokenizer has in any case, beside the special ones."""


@dataclass(frozen=True)
class SpecialTokens:
    """The tokens that stand for no text.

    Attributes:
        pad: fills short texts up; it may be another's token, since a mask hides it.
        start: begins every text.
        end: ends every text.
        mask: stands for a hidden word, where a model was trained with it.
        others: of a family's own use.
        kinds: what transformers calls ``start`` and ``end``.
    """

    pad: str
    start: str
    end: str
    mask: str | None = None
    others: tuple[str, ...] = ()
    kinds: tuple[str, str] = ("cls", "sep")

    def all(self) -> list[str]:
        """Return each of them once, in the order of their ids."""
        masks = [] if self.mask is None else [self.mask]
        return list(dict.fromkeys([self.pad, self.start, self.end, *masks, *self.others]))

    def names(self) -> dict[str, str]:
        """Return what transformers calls them in ``tokenizer_config.json``."""
        kinds = {"pad": self.pad, self.kinds[0]: self.start, self.kinds[1]: self.end}
        if self.mask is not None:
            kinds["mask"] = self.mask
        return {f"{kind}_token": token for kind, token in kinds.items()}


BERT = SpecialTokens("[PAD]", "[CLS]", "[SEP]", mask="[MASK]")


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
    """A `tokenizers.Tokenizer` that starts and ends every text with a special token.

    Args:
        backend: the tokenizer itself.
        special: its special tokens.

    Raises:
        CheckpointError: the tokenizer has no token for padding.
    """

    def __init__(self, backend: Tokenizer, special: SpecialTokens = BERT) -> None:
        backend.no_padding()
        backend.no_truncation()
        self.backend = backend
        self.special = special
        pad = self.id_of(special.pad)
        if pad is None:
            raise CheckpointError(
                f"the tokenizer has no {special.pad} token; it belongs to a model of another kind"
            )
        self.pad_id: int = pad

    def id_of(self, token: str) -> int | None:
        """Return the id of a token, or None when there is no such token."""
        found: int | None = self.backend.token_to_id(token)
        return found

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""
        return int(self.backend.get_vocab_size())

    def check_fits(self, vocabulary: int) -> None:
        """Raise `CheckpointError` when a model of ``vocabulary`` ids would not know every token."""
        if self.vocabulary > vocabulary:
            raise CheckpointError(
                f"the tokenizer has {self.vocabulary} tokens and the model {vocabulary}"
            )

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
            **self.special.names(),
        }
        text = json.dumps(described, indent=2, sort_keys=True) + "\n"
        (directory / "tokenizer_config.json").write_text(text, "utf-8")

    @classmethod
    def load(cls, directory: Path, special: SpecialTokens = BERT) -> "TextTokenizer":
        """Read ``tokenizer.json``; raises `CheckpointError` when it is missing or damaged."""
        path = directory / "tokenizer.json"
        try:
            # The Rust parser raises bare Exception for every kind of damage.
            return cls(Tokenizer.from_str(path.read_text("utf-8")), special)
        except CheckpointError:
            raise
        except Exception as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise CheckpointError(f"{path.name} cannot be read as a tokenizer: {reason}") from error


def train_tokenizer(
    texts: Iterable[str], vocabulary: int, special: SpecialTokens = BERT
) -> TextTokenizer:
    """Train a lower-casing byte-level BPE on ``texts``; the same texts give the same tokenizer.

    Args:
        texts: training texts, any number.
        vocabulary: largest number of token ids; there are never fewer than `BYTES` and the
            special ones.
        special: the special tokens, which get the first ids.
    """
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=max(vocabulary, BYTES + len(special.all())),
        special_tokens=special.all(),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    start, end = special.start, special.end
    backend.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        pair=f"{start} $A {end} $B {end}",
        special_tokens=[(name, backend.token_to_id(name)) for name in (start, end)],
    )
    return TextTokenizer(backend, special)
