"""A data set whose pairs have two images each, and small BERTs to start from."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

from engine.data.pairs import Pair, PairDataset
from engine.tokenizers import train_tokenizer


def _joined(first: Pair, second: Pair, label: int) -> Pair:
    return replace(
        first,
        items=first.items + second.items,
        item_ids=first.item_ids + second.item_ids,
        label=label,
    )


@pytest.fixture(scope="session")
def image_pairs(image_data: PairDataset) -> PairDataset:
    """30 pairs of two images with a label, as NLVR has them."""
    halves = zip(image_data.pairs[::2], image_data.pairs[1::2], strict=True)
    pairs = [_joined(first, second, at % 2) for at, (first, second) in enumerate(halves)]
    return replace(image_data, name="image_pairs", pairs=pairs, classes=2)


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """A BERT of 16 dimensions, as readers of graphs start from."""
    texts = ["node about binds", "the first feeds the other"]
    return _saved_bert(tmp_path / "encoder", texts, size=16, most_tokens=64)


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    """A BERT of 32 dimensions, as wide as a tiny ALBEF."""
    return _saved_bert(tmp_path / "bert", ["one two three"], size=32, most_tokens=48)


def _saved_bert(folder: Path, texts: list[str], *, size: int, most_tokens: int) -> Path:
    """A small BERT with random weights, saved as transformers saves one, with a tokenizer."""
    torch.manual_seed(5)
    tokenizer = train_tokenizer(texts, 300)
    sizes = BertConfig(
        vocab_size=tokenizer.vocabulary,
        hidden_size=size,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=2 * size,
        max_position_embeddings=most_tokens,
    )
    BertModel(sizes).save_pretrained(folder)
    tokenizer.save(folder, most_tokens)
    return folder
