from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from engine.buffers import allocate
from engine.data.manifest import load_dataset
from engine.data.pairs import ItemStore, Pair, PairDataset
from engine.errors import DataError, InvalidSpec
from engine.families import Albef, Encoding, PairModel, families
from engine.frozen import FrozenEncodings
from engine.inputs import Inputs, still
from engine.spec import DataSpec

Build = Callable[..., PairModel]


class CountingStore:
    """A store that writes down what is opened, and how many of its images live at once."""

    def __init__(self, store: ItemStore) -> None:
        self.store = store
        self.opened: list[str] = []

    def load(self, reference: str) -> Any:
        self.opened.append(reference)
        return self.store.load(reference)


@pytest.fixture
def model(tiny: Build) -> PairModel:
    return tiny("albef")


def repeated(data: PairDataset) -> PairDataset:
    """Six pairs over two images and three texts."""
    source = data.pairs
    pairs = [
        Pair(
            f"r{n}",
            source[n % 2].items,
            source[n % 2].item_ids,
            ("red", "green", "blue")[n % 3],
            f"t{n}",
            None,
            "train",
        )
        for n in range(6)
    ]
    return replace(data, pairs=pairs, items=CountingStore(data.items))


def test_an_image_is_opened_when_it_is_first_needed_and_once(
    model: PairModel, image_data: PairDataset
) -> None:
    data = repeated(image_data)
    inputs = Inputs(model, data)
    assert isinstance(data.items, CountingStore)
    with still(model):
        inputs.encode(model, torch.tensor([0, 2]))
        assert data.items.opened == list(data.pairs[0].items)
        inputs.encode(model, torch.arange(6))
        inputs.encode(model, torch.arange(6))
    assert sorted(data.items.opened) == sorted({r for p in data.pairs for r in p.items})
    assert (inputs.items, inputs.texts, len(inputs)) == (2, 3, 6)
    assert inputs.item_rows.tolist() == [[0], [1]] * 3
    assert inputs.text_rows.tolist() == [0, 1, 2, 0, 1, 2]


def test_rows_are_found_by_pair_id_and_by_split(model: PairModel, image_data: PairDataset) -> None:
    inputs = Inputs(model, image_data)
    names = [image_data.pairs[7].id, image_data.pairs[2].id]
    assert inputs.rows(names).tolist() == [7, 2]
    for split in ("train", "val", "test"):
        rows = inputs.split(split)
        assert [inputs.pairs[row].split for row in rows] == [split] * len(rows)
    assert sum(len(inputs.split(s)) for s in ("train", "val", "test")) == len(image_data.pairs)


def test_unknown_pair_ids_are_counted_and_the_first_are_named(
    model: PairModel, image_data: PairDataset
) -> None:
    inputs = Inputs(model, image_data)
    with pytest.raises(InvalidSpec, match="25 pair ids") as caught:
        inputs.rows([f"no{n}" for n in range(25)])
    assert "no19" in str(caught.value)
    assert "no20" not in str(caught.value)


def test_labels_say_minus_one_where_there_is_none(
    model: PairModel, image_data: PairDataset, graph_data: PairDataset, tiny: Build
) -> None:
    assert (Inputs(model, image_data).labels == -1).all()
    labels = Inputs(tiny("gcn_bert"), graph_data).labels
    assert labels.tolist() == [n % 2 for n in range(40)]


def test_a_repeated_pair_is_encoded_like_any_other(
    model: PairModel, image_data: PairDataset
) -> None:
    inputs = Inputs(model, repeated(image_data))
    items, texts = inputs.encode(model, torch.tensor([0, 2, 1, 0]))
    alone, words = inputs.encode(model, torch.tensor([2]))
    torch.testing.assert_close(items.pooled[1], alone.pooled[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(texts.pooled[1], words.pooled[0], rtol=1e-4, atol=1e-5)
    assert torch.equal(items.pooled[0], items.pooled[3])


@pytest.mark.parametrize("family", list(families))
def test_frozen_encodings_are_those_of_the_encoders(
    family: str, tiny: Build, data_for: Callable[[str], PairDataset]
) -> None:
    model = tiny(family)
    inputs = Inputs(model, data_for(family))
    rows = torch.tensor([3, 1, 20, 1])
    plain = [part.pooled for part in inputs.encode(model, rows)]
    fused = model.fuse(*inputs.encode(model, rows)).logits
    with inputs.freeze(model):
        kept = inputs.encode(model, rows)
        for one, other in zip(plain, kept, strict=True):
            torch.testing.assert_close(one, other.pooled, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(fused, model.fuse(*kept).logits, rtol=1e-4, atol=1e-5)


@pytest.fixture
def two_images(image_data: PairDataset) -> PairDataset:
    """Four pairs of two images: (a, b), (b, a), (a, a), (c, b)."""
    a, b, c = image_data.pairs[:3]
    chosen = [(a, b), (b, a), (a, a), (c, b)]
    pairs = [
        replace(
            first,
            id=f"p{at}",
            items=first.items + second.items,
            item_ids=first.item_ids + second.item_ids,
        )
        for at, (first, second) in enumerate(chosen)
    ]
    return replace(image_data, pairs=pairs)


def test_the_images_of_a_pair_are_joined_in_their_order(two_images: PairDataset) -> None:
    model = Albef.build(Albef.tiny(), two_images, 0)
    inputs = Inputs(model, two_images)
    assert inputs.items == 3
    assert inputs.item_rows.tolist() == [[0, 1], [1, 0], [0, 0], [2, 1]]
    rows = torch.tensor([3, 1])
    joined, _ = inputs.encode(model, rows)
    single = inputs.encode_items(model, torch.tensor([2, 1, 0]))
    length, width = single.tokens.shape[1:]
    assert joined.tokens.shape == (2, 2 * length, width)
    assert joined.mask.shape == (2, 2 * length)
    assert joined.pooled.shape == (2, 2 * width)
    for place, (left, right) in enumerate([(0, 1), (1, 2)]):
        assert torch.equal(joined.tokens[place, :length], single.tokens[left])
        assert torch.equal(joined.tokens[place, length:], single.tokens[right])
        expected = torch.cat([single.pooled[left], single.pooled[right]])
        assert torch.equal(joined.pooled[place], expected)


def test_frozen_encodings_of_image_pairs_are_those_of_the_encoders(
    two_images: PairDataset,
) -> None:
    model = Albef.build(Albef.tiny(), two_images, 0)
    inputs = Inputs(model, two_images)
    rows = torch.tensor([3, 0, 2])
    plain = model.fuse(*inputs.encode(model, rows)).logits
    with inputs.freeze(model):
        kept = inputs.encode(model, rows)
        assert not kept[0].tokens.requires_grad
        torch.testing.assert_close(plain, model.fuse(*kept).logits, rtol=1e-4, atol=1e-5)


def test_items_of_some_pairs_go_with_texts_of_others(
    model: PairModel, image_data: PairDataset
) -> None:
    inputs = Inputs(model, image_data)
    items, texts = inputs.encode_across(model, torch.tensor([4, 2]), torch.tensor([7, 7]))
    assert torch.equal(items.pooled, inputs.encode_items_of(model, torch.tensor([4, 2])).pooled)
    alone = inputs.encode(model, torch.tensor([7]))[1].pooled
    torch.testing.assert_close(texts.pooled, alone.expand(2, -1), rtol=1e-4, atol=1e-5)


def test_a_frozen_model_runs_its_encoders_once_a_row(
    model: PairModel, image_data: PairDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = Inputs(model, image_data)
    seen: list[int] = []
    original = model.encode_items

    def counting(pixels: Any) -> Encoding:
        seen.append(len(pixels))
        return original(pixels)

    monkeypatch.setattr(model, "encode_items", counting)
    with inputs.freeze(model):
        inputs.encode(model, torch.tensor([0, 1, 2]))
        inputs.encode(model, torch.tensor([2, 1, 3]))
        inputs.encode(model, torch.tensor([0, 3]))
    assert seen == [3, 1]
    inputs.encode(model, torch.tensor([0]))
    assert seen == [3, 1, 1]


def test_frozen_encodings_carry_no_gradient_and_know_their_model_only(
    model: PairModel, image_data: PairDataset
) -> None:
    inputs = Inputs(model, image_data)
    student = model.clone()
    with inputs.freeze(model):
        assert not inputs.encode(model, torch.arange(2))[0].tokens.requires_grad
        assert inputs.encode(student, torch.arange(2))[0].tokens.requires_grad


def test_freezing_within_a_frozen_context_keeps_what_is_there(
    model: PairModel, image_data: PairDataset
) -> None:
    inputs = Inputs(model, image_data)
    rows = torch.arange(2)
    with inputs.freeze(model):
        with inputs.freeze(model):
            inner = inputs.encode(model, rows)[0].pooled
        assert not inputs.encode(model, rows)[0].tokens.requires_grad
        assert torch.equal(inputs.encode(model, rows)[0].pooled, inner)


def test_large_encodings_are_kept_in_a_file_and_are_the_same() -> None:
    def encode(rows: torch.Tensor) -> Encoding:
        length = int(rows.max()) + 1
        mask = torch.arange(length)[None] <= rows[:, None]
        tokens = rows[:, None, None] * torch.ones(1, length, 3)
        return Encoding(tokens, mask, tokens[:, 0])

    small, large = FrozenEncodings(9, encode), FrozenEncodings(9, encode, limit=0)
    for rows in (torch.tensor([0, 2]), torch.tensor([8, 2, 5])):
        one, other = (kept.take(rows, torch.device("cpu")) for kept in (small, large))
        assert torch.equal(one.tokens, other.tokens)
        assert torch.equal(one.mask, other.mask)
        assert torch.equal(one.pooled, other.pooled)
        assert one.mask.sum(1).tolist() == (rows + 1).tolist()
        assert one.tokens.shape[1] == int(rows.max()) + 1


def test_a_mapped_buffer_can_be_written_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    buffer = allocate((4, 3), torch.float32, limit=0)
    buffer[2] = 7.0
    assert buffer.sum() == 21
    assert list(tmp_path.iterdir()) == []


def test_the_gallery_is_drawn_from_the_rows_it_was_given(
    model: PairModel, image_data: PairDataset
) -> None:
    inputs = Inputs(model, image_data)
    train = set(inputs.split("train").tolist())
    assert set(inputs.gallery.tolist()) <= train
    first = inputs.choose_gallery(torch.arange(5, 40), seed=1, size=8)
    assert len(set(first.tolist())) == 8
    assert set(first.tolist()) <= set(range(5, 40))
    assert torch.equal(inputs.choose_gallery(torch.arange(5, 40), seed=1, size=8), first)
    assert torch.equal(inputs.gallery, first)


def test_a_broken_image_stops_the_run_with_its_reference(model: PairModel, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")
    content = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    rows = [
        f'{{"id": "{name}", "image": "{name}.png", "text": "a", "split": "train"}}\n'
        for name in ("good", "cut")
    ]
    (tmp_path / "m.jsonl").write_text("".join(rows))
    data = load_dataset(DataSpec(manifest=tmp_path / "m.jsonl", root=tmp_path))
    inputs = Inputs(model, data)
    with pytest.raises(DataError, match=r"cut\.png"):
        inputs.encode(model, inputs.split("train"))


def test_a_data_set_of_another_modality_is_refused(
    model: PairModel, graph_data: PairDataset
) -> None:
    with pytest.raises(InvalidSpec, match="reads images"):
        Inputs(model, graph_data)


def test_a_still_model_has_no_dropout_and_gets_its_mode_back(tiny: Build) -> None:
    model = tiny("albef").train()
    with still(model):
        assert not model.training
        assert not torch.is_grad_enabled()
    assert model.training
