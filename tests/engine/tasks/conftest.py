"""Small labelled data sets of scans of digits: one image a pair, and two."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from engine.data.pairs import Pair, PairDataset
from engine.families import Albef, PairModel
from engine.tasks import Classification, GraphText, Nlvr, VisualEntailment

HYPOTHESES = ("no digit is shown", "somebody wrote it in spring", "there are four digits")
"""Contradicted, left open and entailed by every scan."""


@pytest.fixture(scope="session")
def entailment_data(image_data: PairDataset) -> PairDataset:
    """The 60 images of digits, each with one of three hypotheses."""
    pairs = [
        replace(pair, text=f"{HYPOTHESES[row % 3]}, case {row}", text_id=f"t{row}", label=row % 3)
        for row, pair in enumerate(image_data.pairs)
    ]
    return replace(image_data, pairs=pairs, classes=3)


@pytest.fixture(scope="session")
def nlvr_data(image_data: PairDataset) -> PairDataset:
    """Each image of digits with the next one, and a statement about either of them."""
    source = image_data.pairs
    pairs = []
    for row, left in enumerate(source):
        right = source[(row + 1) % len(source)]
        text = f"{left.text} is on the {'left' if row % 2 else 'right'}"
        items, item_ids = left.items + right.items, left.item_ids + right.item_ids
        pairs.append(Pair(f"n{row}", items, item_ids, text, f"t{row}", row % 2, left.split))
    return replace(image_data, pairs=pairs, classes=2)


@pytest.fixture
def labelled(
    entailment_data: PairDataset,
    nlvr_data: PairDataset,
    graph_data: PairDataset,
    tiny: Callable[..., PairModel],
) -> Callable[[type[Classification]], tuple[PairModel, PairDataset]]:
    """A function that gives a tiny model and a small data set for a task with labels."""

    def choose(task: type[Classification]) -> tuple[PairModel, PairDataset]:
        if task is GraphText:
            return tiny("gcn_bert"), graph_data
        data = {VisualEntailment: entailment_data, Nlvr: nlvr_data}[task]
        return Albef.build(Albef.tiny(), data, seed=0), data

    return choose
