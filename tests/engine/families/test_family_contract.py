"""What every registered family must hold to; a new family is tested by being registered."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.data.pairs import PairDataset
from engine.errors import CheckpointError
from engine.families import Fused, PairModel, families
from engine.inputs import Inputs

Build = Callable[..., PairModel]
DataFor = Callable[[str], PairDataset]

pytestmark = pytest.mark.parametrize("family", list(families))


def fuse(model: PairModel, inputs: Inputs, rows: Tensor) -> Fused:
    return model.fuse(*inputs.encode(model, rows))


def test_every_parameter_belongs_to_exactly_one_part(family: str, tiny: Build) -> None:
    model = tiny(family)
    named = [name for part in model.parts().values() for name, _ in part]
    assert sorted(named) == sorted(name for name, _ in model.named_parameters())
    assert {part for part, members in model.parts().items() if members} == {
        "item",
        "text",
        "fusion",
        "head",
    }


@pytest.mark.parametrize("update", ["all", "fusion"])
def test_gradients_flow_only_where_the_update_allows(
    family: str, update: str, tiny: Build, data_for: DataFor
) -> None:
    model = tiny(family)
    chosen = model.set_trainable(update)
    fused = fuse(model, Inputs(model, data_for(family)), torch.arange(6))
    (fused.readout.square().sum() + fused.logits.square().sum()).backward()
    parts = model.parts()
    frozen = [] if update == "all" else [*parts["item"], *parts["text"]]
    assert all(p.grad is None and not p.requires_grad for _, p in frozen)
    assert {id(p) for p in chosen} == {id(p) for p in model.parameters() if p.requires_grad}
    for part in ("fusion", "head"):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for _, p in parts[part]), part
    if update == "all":
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for _, p in parts["item"])
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for _, p in parts["text"])


def test_item_and_text_both_reach_the_readout(family: str, tiny: Build, data_for: DataFor) -> None:
    model = tiny(family)
    items, texts = Inputs(model, data_for(family)).encode(model, torch.arange(8))
    plain = model.fuse(items, texts).readout
    turned = torch.arange(8).roll(1)
    other_items = model.fuse(items.take(turned), texts).readout
    other_texts = model.fuse(items, texts.take(turned)).readout
    for other in (other_items, other_texts):
        assert ((plain - other).abs().amax(1) > 1e-4).all()


def test_saving_and_loading_gives_the_same_model_to_the_bit(
    family: str, tiny: Build, data_for: DataFor, tmp_path: Path
) -> None:
    model = tiny(family)
    model.save(tmp_path)
    loaded = families.get(family).load(tmp_path)
    assert loaded.config == model.config
    before, after = model.state_dict(), loaded.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    rows = torch.arange(5)
    data = data_for(family)
    first = fuse(model, Inputs(model, data), rows)
    second = fuse(loaded.eval(), Inputs(loaded, data), rows)
    assert torch.equal(first.readout, second.readout)
    assert torch.equal(first.logits, second.logits)


def test_saving_twice_gives_the_same_bytes(family: str, tiny: Build, tmp_path: Path) -> None:
    made = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        tiny(family).save(folder)
        made.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert made[0] == made[1]


def test_another_seed_gives_other_weights(family: str, tiny: Build) -> None:
    first, second = tiny(family, 0), tiny(family, 1)
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


def test_building_leaves_the_callers_random_numbers_alone(family: str, tiny: Build) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    tiny(family, 7)
    assert torch.equal(torch.rand(4), expected)


def test_a_pair_gives_the_same_alone_as_in_a_batch_of_longer_ones(
    family: str, tiny: Build, data_for: DataFor
) -> None:
    model = tiny(family)
    data = data_for(family)
    inputs = Inputs(model, data)
    lengths = [len(pair.text) for pair in data.pairs]
    shortest = lengths.index(min(lengths))
    longest = lengths.index(max(lengths))
    together = fuse(model, inputs, torch.tensor([longest, shortest, 0, 1]))
    alone = fuse(model, inputs, torch.tensor([shortest]))
    torch.testing.assert_close(together.readout[1], alone.readout[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together.logits[1], alone.logits[0], rtol=1e-4, atol=1e-5)


def test_the_order_in_a_batch_does_not_matter(family: str, tiny: Build, data_for: DataFor) -> None:
    model = tiny(family)
    inputs = Inputs(model, data_for(family))
    rows = torch.arange(10)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    plain, shuffled = fuse(model, inputs, rows), fuse(model, inputs, rows[order])
    torch.testing.assert_close(plain.readout[order], shuffled.readout, rtol=1e-4, atol=1e-5)


def test_a_clone_is_equal_and_shares_no_parameter(family: str, tiny: Build) -> None:
    model = tiny(family)
    copy = model.clone()
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.add_(1)
    for mine, other in zip(model.parameters(), copy.parameters(), strict=True):
        torch.testing.assert_close(mine + 1, other)


def test_weights_that_do_not_fit_are_refused(family: str, tiny: Build, tmp_path: Path) -> None:
    tiny(family).save(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        families.get(family).load(tmp_path)


def test_a_configuration_with_an_unknown_field_is_refused(
    family: str, tiny: Build, tmp_path: Path
) -> None:
    tiny(family).save(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace("{", '{"no_such_size": 1,', 1))
    with pytest.raises(CheckpointError, match="no_such_size"):
        families.get(family).load(tmp_path)


def test_similarities_are_cosines_where_a_family_ranks(
    family: str, tiny: Build, data_for: DataFor
) -> None:
    model = tiny(family)
    encoded = Inputs(model, data_for(family)).encode(model, torch.arange(4))
    if not model.contrastive:
        with pytest.raises(NotImplementedError, match=family):
            model.project(*encoded)
        return
    for vectors in model.project(*encoded):
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(4))
    assert model.temperature > 0
