from dataclasses import replace

import pytest
import torch

from engine.data.pairs import PairDataset
from engine.families import Albef, Clip, GcnBert, PairModel
from engine.inputs import Inputs
from engine.tasks import Nlvr


@pytest.fixture
def model(nlvr_data: PairDataset) -> PairModel:
    return Albef.build(Albef.tiny(), nlvr_data, seed=0)


@pytest.mark.parametrize("side", [0, 1])
def test_either_image_of_a_pair_reaches_its_score(
    model: PairModel, nlvr_data: PairDataset, side: int
) -> None:
    changed = []
    for pair in nlvr_data.pairs:
        items = list(pair.items)
        items[side] = nlvr_data.pairs[30].items[0]
        changed.append(replace(pair, items=tuple(items)))
    rows = torch.arange(6)
    before = Nlvr().scores(model, Inputs(model, nlvr_data), rows)
    after = Nlvr().scores(model, Inputs(model, replace(nlvr_data, pairs=changed)), rows)
    assert ((before - after).abs() > 1e-6).all()


def test_the_left_image_is_not_the_right_one(model: PairModel, nlvr_data: PairDataset) -> None:
    swapped = [replace(pair, items=pair.items[::-1]) for pair in nlvr_data.pairs]
    rows = torch.arange(6)
    before = Nlvr().scores(model, Inputs(model, nlvr_data), rows)
    after = Nlvr().scores(model, Inputs(model, replace(nlvr_data, pairs=swapped)), rows)
    assert ((before - after).abs() > 1e-6).all()


def test_a_family_that_reads_one_image_is_refused_with_the_reason() -> None:
    assert Nlvr.refusal(Albef) is None
    assert Nlvr.refusal(Clip) == "nlvr has 2 images a pair, and clip cannot read them together"
    assert "needs image data" in (Nlvr.refusal(GcnBert) or "")
