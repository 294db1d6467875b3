import json
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from engine.errors import CheckpointError
from engine.tokenizers import SpecialTokens, TextTokenizer, train_tokenizer

TEXTS = ["three eight one seven", "a red café by the sea", "Eight ONE"] * 4


def test_the_same_texts_train_the_same_tokenizer() -> None:
    first, second = (train_tokenizer(TEXTS, 400) for _ in range(2))
    assert first.backend.to_str() == second.backend.to_str()


def test_every_text_starts_with_cls_and_ends_with_sep() -> None:
    tokenizer = train_tokenizer(TEXTS, 300)
    table = tokenizer.encode(["", "three", "three eight one seven " * 9], 12)
    cls, sep = (tokenizer.backend.token_to_id(name) for name in ("[CLS]", "[SEP]"))
    assert table.lengths[0] == 2
    assert table.lengths[2] == 12
    for ids, length in zip(table.ids.tolist(), table.lengths.tolist(), strict=True):
        assert ids[0] == cls
        assert ids[length - 1] == sep
        assert set(ids[length:]) <= {tokenizer.pad_id}


def test_words_and_letters_never_seen_become_tokens() -> None:
    tokenizer = train_tokenizer(TEXTS, 300)
    table = tokenizer.encode(["zebra", "zebro", "日本"], 32)
    assert not torch.equal(table.ids[0], table.ids[1])
    assert (table.lengths > 2).all()


def test_upper_and_lower_case_are_one() -> None:
    table = train_tokenizer(TEXTS, 300).encode(["Three EIGHT", "three eight"], 16)
    assert torch.equal(table.ids[0], table.ids[1])


def test_a_batch_is_cut_to_its_longest_text() -> None:
    tokenizer = train_tokenizer(TEXTS, 300)
    table = tokenizer.encode(["one", "one two three four five six", "one"], 32)
    batch = table.take(torch.tensor([0, 2]), torch.device("cpu"))
    assert batch.ids.shape[1] == table.lengths[0]
    assert batch.mask.all()
    both = table.take(torch.tensor([0, 1]), torch.device("cpu"))
    assert both.mask.sum(1).tolist() == table.lengths[:2].tolist()


def test_a_saved_tokenizer_is_read_back_and_by_transformers(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXTS, 300)
    tokenizer.save(tmp_path, 16)
    loaded = TextTokenizer.load(tmp_path)
    own = tokenizer.encode(["three red seas"], 16).ids[0]
    assert torch.equal(loaded.encode(["three red seas"], 16).ids[0], own)
    assert AutoTokenizer.from_pretrained(tmp_path)("three red seas")["input_ids"] == own.tolist()


def test_a_damaged_tokenizer_file_is_refused(tmp_path: Path) -> None:
    train_tokenizer(TEXTS, 300).save(tmp_path, 16)
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        TextTokenizer.load(tmp_path)


def test_special_tokens_have_the_first_ids_and_padding_may_be_one_of_them(tmp_path: Path) -> None:
    special = SpecialTokens("<end>", "<start>", "<end>", others=("<own>",), kinds=("bos", "eos"))
    tokenizer = train_tokenizer(TEXTS, 300, special)
    assert [tokenizer.id_of(token) for token in ("<end>", "<start>", "<own>")] == [0, 1, 2]
    assert tokenizer.pad_id == 0
    table = tokenizer.encode(["one", "one two three eight"], 64)
    assert table.ids[0, 0] == 1
    assert table.ids[0, table.lengths[0] - 1 :].unique().tolist() == [0]
    tokenizer.save(tmp_path, 64)
    described = json.loads((tmp_path / "tokenizer_config.json").read_text())
    names = {key: token for key, token in described.items() if key.endswith("_token")}
    assert names == {"bos_token": "<start>", "eos_token": "<end>", "pad_token": "<end>"}
    assert TextTokenizer.load(tmp_path, special).id_of("<own>") == 2
    with pytest.raises(CheckpointError, match=r"no \[PAD\] token"):
        TextTokenizer.load(tmp_path)
