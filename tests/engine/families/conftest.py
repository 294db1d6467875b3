"""A data set whose pairs have two images each."""

from dataclasses import replace

import pytest

from engine.data.pairs import Pair, PairDataset


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
