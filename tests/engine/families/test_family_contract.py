"""What every registered family must hold to; a new family is tested by being registered."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from engine.data.pairs import PairDataset
from engine.errors import CheckpointError, InvalidSpec
from engine.families import Encoding, Fused, PairModel, families
from engine.families.base import MULTIPLE_OF
from engine.inputs import Inputs

Build = Callable[..., PairModel]

FROZEN = "gcn_bert, frozen"
"""The form that results on PGR are of: texts are read by an encoder that is not trained."""
CASES = [(name, count) for name in families for count in families.get(name).item_counts]
CASES.append((FROZEN, 1))
pytestmark = pytest.mark.parametrize(("family", "images"), CASES)


@pytest.fixture
def data(
    family: str,
    images: int,
    data_for: Callable[[str], PairDataset],
    image_pairs: PairDataset,
) -> PairDataset:
    """The small data set of the case: of two images a pair where there are to be two."""
    return image_pairs if images == 2 else data_for(family.partition(",")[0])


@pytest.fixture
def build(family: str, data: PairDataset, encoder: Path) -> Build:
    """A function that builds the tiny model of the case."""
    kind = kind_of(family)
    changes = {"pretrained": str(encoder)} if family == FROZEN else {}
    return lambda seed=0: kind.build(kind.tiny().model_copy(update=changes), data, seed)


def kind_of(family: str) -> type[PairModel]:
    """The family of a case."""
    return families.get(family.partition(",")[0])


def fuse(model: PairModel, inputs: Inputs, rows: Tensor) -> Fused:
    return model.fuse(*inputs.encode(model, rows))


def test_the_data_set_says_how_many_images_a_pair_has(
    family: str, images: int, build: Build
) -> None:
    assert build().items_per_pair == images


def test_a_field_that_the_data_decide_cannot_say_otherwise(
    family: str, images: int, data: PairDataset
) -> None:
    """The service refuses such a field by what the family states, and so must the family."""
    kind = kind_of(family)
    assert set(kind.set_by_data) <= set(kind.config_class.model_fields)
    for field, fact in kind.set_by_data.items():
        wrong = 3 - images if fact == "items_per_pair" else 9
        config = kind.tiny().model_copy(update={field: wrong})
        with pytest.raises(InvalidSpec, match=f"config.{field} is {wrong}"):
            kind.build(config, data, 0)


def test_every_parameter_belongs_to_exactly_one_part(
    family: str, images: int, build: Build
) -> None:
    model = build()
    named = [name for part in model.parts().values() for name, _ in part]
    assert sorted(named) == sorted(name for name, _ in model.named_parameters())
    filled = {part for part, members in model.parts().items() if members}
    # A family that neither classifies nor says "match" has no head.
    headless = not (model.matching or model.classifies)
    assert filled == {"item", "text", "fusion"} | (set() if headless else {"head"})


@pytest.mark.parametrize("update", ["all", "fusion"])
def test_gradients_flow_only_where_the_update_allows(
    family: str, images: int, update: str, build: Build, data: PairDataset
) -> None:
    model = build()
    chosen = model.set_trainable(update)
    fused = fuse(model, Inputs(model, data), torch.arange(6))
    (fused.readout.square().sum() + fused.logits.square().sum()).backward()
    parts = model.parts()
    frozen = [] if update == "all" else [*parts["item"], *parts["text"]]
    assert all(p.grad is None and not p.requires_grad for _, p in frozen)
    assert {id(p) for p in chosen} == {id(p) for p in model.parameters() if p.requires_grad}
    reached = {"fusion", "head"} if update == "fusion" else set(parts)
    for part in reached:
        members = [p for _, p in parts[part]]
        moved = [p.grad is not None and p.grad.abs().sum() > 0 for p in members]
        assert any(moved) or not members, part


def test_item_and_text_both_reach_the_readout(
    family: str, images: int, build: Build, data: PairDataset
) -> None:
    model = build()
    items, texts = Inputs(model, data).encode(model, torch.arange(8))
    plain = model.fuse(items, texts).readout
    turned = torch.arange(8).roll(1)
    others = [model.fuse(items.take(turned), texts), model.fuse(items, texts.take(turned))]
    others += [
        model.fuse(with_another_image(items, number, images), texts) for number in range(images)
    ]
    for other in others:
        assert ((plain - other.readout).abs().amax(1) > 1e-5).all()


def with_another_image(items: Encoding, number: int, images: int) -> Encoding:
    """The items with each pair's image ``number`` taken from the pair before."""
    parts = list(items.tokens.chunk(images, dim=1))
    pooled = list(items.pooled.chunk(images, dim=1))
    parts[number], pooled[number] = parts[number].roll(1, 0), pooled[number].roll(1, 0)
    return Encoding(torch.cat(parts, dim=1), items.mask, torch.cat(pooled, dim=1))


def test_saving_and_loading_gives_the_same_model_to_the_bit(
    family: str, images: int, build: Build, data: PairDataset, tmp_path: Path
) -> None:
    model = build()
    model.save(tmp_path)
    loaded = kind_of(family).load(tmp_path)
    assert loaded.config == model.config
    before, after = model.state_dict(), loaded.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    rows = torch.arange(5)
    first = fuse(model, Inputs(model, data), rows)
    second = fuse(loaded.eval(), Inputs(loaded, data), rows)
    assert torch.equal(first.readout, second.readout)
    assert torch.equal(first.logits, second.logits)


def test_saving_twice_gives_the_same_bytes(
    family: str, images: int, build: Build, tmp_path: Path
) -> None:
    made = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        build().save(folder)
        made.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert made[0] == made[1]


def test_another_seed_gives_other_weights(family: str, images: int, build: Build) -> None:
    first, second = build(0), build(1)
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


def test_building_leaves_the_callers_random_numbers_alone(
    family: str, images: int, build: Build
) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    build(7)
    assert torch.equal(torch.rand(4), expected)


def test_a_pair_gives_the_same_alone_as_in_a_batch_of_longer_ones(
    family: str, images: int, build: Build, data: PairDataset
) -> None:
    model = build()
    inputs = Inputs(model, data)
    lengths = [len(pair.text) for pair in data.pairs]
    shortest = lengths.index(min(lengths))
    longest = lengths.index(max(lengths))
    together = fuse(model, inputs, torch.tensor([longest, shortest, 0, 1]))
    alone = fuse(model, inputs, torch.tensor([shortest]))
    torch.testing.assert_close(together.readout[1], alone.readout[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together.logits[1], alone.logits[0], rtol=1e-4, atol=1e-5)


def test_the_order_in_a_batch_does_not_matter(
    family: str, images: int, build: Build, data: PairDataset
) -> None:
    model = build()
    inputs = Inputs(model, data)
    rows = torch.arange(10)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    plain, shuffled = fuse(model, inputs, rows), fuse(model, inputs, rows[order])
    torch.testing.assert_close(plain.readout[order], shuffled.readout, rtol=1e-4, atol=1e-5)


def test_a_clone_is_equal_and_shares_no_parameter(family: str, images: int, build: Build) -> None:
    model = build()
    copy = model.clone()
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.add_(1)
    for mine, other in zip(model.parameters(), copy.parameters(), strict=True):
        torch.testing.assert_close(mine + 1, other)


def test_weights_that_do_not_fit_are_refused(
    family: str, images: int, build: Build, tmp_path: Path
) -> None:
    build().save(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        kind_of(family).load(tmp_path)


def test_a_configuration_with_an_unknown_field_is_refused(
    family: str, images: int, build: Build, tmp_path: Path
) -> None:
    build().save(tmp_path)
    config = tmp_path / "config.json"
    described = json.loads(config.read_text())
    # In the layout of transformers our part stands below a key of its own.
    described.get("lethe", described)["no_such_size"] = 1
    config.write_text(json.dumps(described))
    with pytest.raises(CheckpointError, match="no_such_size"):
        kind_of(family).load(tmp_path)


def test_every_multiple_that_the_schema_asks_for_is_asked_for_by_the_family(
    family: str, images: int
) -> None:
    kind = kind_of(family)
    tiny = kind.tiny().model_dump()
    for field, divisor in kind.config_class.model_json_schema()[MULTIPLE_OF]:
        value = tiny[field]
        too_large = tuple(side + 1 for side in value) if isinstance(value, tuple) else value + 1
        with pytest.raises(ValidationError, match=f"{field} .* is no multiple of {divisor}"):
            kind.config_class.model_validate({**tiny, divisor: too_large})


def test_similarities_are_cosines_where_a_family_ranks(
    family: str, images: int, build: Build, data: PairDataset
) -> None:
    model = build()
    encoded = Inputs(model, data).encode(model, torch.arange(4))
    if not model.contrastive:
        with pytest.raises(NotImplementedError, match=model.family):
            model.project(*encoded)
        return
    if images == 2:
        with pytest.raises(InvalidSpec, match="pairs of 2 images"):
            model.project(*encoded)
        return
    for vectors in model.project(*encoded):
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(4))
    assert model.temperature > 0
