from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.data.pairs import Pair, PairDataset
from engine.errors import InvalidSpec
from engine.families import PairModel, families
from engine.inputs import Inputs
from engine.unlearning import Truths, draw, unrelated_texts


@pytest.fixture
def inputs(image_data: PairDataset) -> Inputs:
    """Six pairs of three images.

    Image A has captions 0 and 1, image B caption 2, and captions 3, 4 and 5 stand under image C.
    Caption 4 repeats the words of caption 0, and caption 5 the text id of caption 2.
    """
    shown = list({pair.items: pair for pair in image_data.split("train")}.values())[:3]
    texts = ["red", "green", "blue", "black", "red", "azure"]
    names = ["t0", "t1", "t2", "t3", "t4", "t2"]
    pairs: list[Pair] = [
        replace(shown[image], id=f"p{row}", text=texts[row], text_id=names[row])
        for row, image in enumerate([0, 0, 1, 2, 2, 2])
    ]
    kind = families.get("albef")
    model: PairModel = kind.build(kind.tiny(), image_data, 0)
    return Inputs(model, replace(image_data, pairs=pairs))


def test_every_pair_of_the_data_set_is_true(inputs: Inputs) -> None:
    rows = torch.arange(6)
    assert Truths(inputs).true(rows, rows).all()


@pytest.mark.parametrize(
    ("item_of", "text_of", "expected"),
    [
        (0, 1, True),  # another caption of the same image
        (0, 4, True),  # the same words, from another image
        (2, 5, True),  # the same text id, from another image
        (3, 2, True),  # image C has the text id of caption 2
        (0, 2, False),
        (2, 3, False),
        (2, 4, False),
    ],
)
def test_a_combination_is_true_by_item_with_text_id_or_words(
    inputs: Inputs, item_of: int, text_of: int, *, expected: bool
) -> None:
    found = Truths(inputs).true(torch.tensor([item_of]), torch.tensor([text_of]))
    assert found.tolist() == [expected]


@pytest.mark.parametrize("seed", range(20))
def test_unrelated_texts_never_make_a_true_pair(inputs: Inputs, seed: int) -> None:
    truths, generator = Truths(inputs), torch.Generator().manual_seed(seed)
    items_of = torch.tensor([0, 1, 2, 2, 3])
    texts_of = unrelated_texts(truths, items_of, torch.arange(6), generator)
    assert not truths.true(items_of, texts_of).any()


def test_no_unrelated_text_is_an_error_and_not_a_true_pair(inputs: Inputs) -> None:
    with pytest.raises(InvalidSpec, match="2 pairs have no unrelated text among 2 pairs"):
        unrelated_texts(
            Truths(inputs), torch.tensor([0, 1]), torch.tensor([0, 1]), torch.Generator()
        )


@given(st.integers(0, 30), st.integers(0, 70), st.integers(0, 2**31))
def test_every_entry_is_drawn_once_before_any_comes_twice(size: int, count: int, seed: int) -> None:
    pool = torch.arange(100, 100 + size)
    drawn = draw(pool, count, torch.Generator().manual_seed(seed))
    assert len(drawn) == (count if size else 0)
    times = torch.bincount(drawn - 100, minlength=size)
    if size:
        assert int(times.max() - times.min()) <= 1
