"""Alternatives say the same of a pair as the family that they change, and show another vector of it."""

import torch

from benchmarks.paper.alternatives import (
    ALTERNATIVES,
    CHANGED,
    AlbefConcat,
    AlbefProjections,
    AlbefUnprojected,
    GcnBertFused,
    register,
)
from benchmarks.paper.data import BenchData
from engine.data.manifest import load_dataset
from engine.families import families
from engine.families.albef import Albef
from engine.families.base import Encoding, Fused, PairModel
from engine.families.gcn_bert import GcnBert
from engine.spec import Update


def _encoding(seed: int, tokens: int, width: int) -> Encoding:
    values = torch.randn(4, tokens, width, generator=torch.Generator().manual_seed(seed))
    return Encoding(values, torch.ones(4, tokens), values[:, 0])


def _both(own: PairModel, other: PairModel, tokens: int, width: int) -> tuple[Fused, Fused]:
    other.load_state_dict(own.state_dict())
    item, text = _encoding(0, tokens, width), _encoding(1, tokens, width)
    with torch.no_grad():
        return own.fuse(item, text), other.fuse(item, text)


def test_the_fused_vector_of_graph_and_text_is_a_third_of_their_readout() -> None:
    config = GcnBert.tiny()
    models = [kind(config, None, None) for kind in (GcnBert, GcnBertFused)]
    own, other = _both(*models, tokens=1, width=config.hidden_size)
    assert torch.equal(own.logits, other.logits)
    assert other.readout.shape == (4, config.hidden_size)
    assert torch.equal(own.readout[:, -config.hidden_size :], other.readout)


def test_the_concatenated_readout_begins_with_what_the_encoders_say(
    prepared: dict[str, BenchData],
) -> None:
    dataset, config = load_dataset(prepared["digits"].spec), Albef.tiny()
    models = [kind.build(config, dataset, seed=0) for kind in (Albef, AlbefConcat)]
    width = models[0].config.hidden_size
    own, other = _both(*models, tokens=3, width=width)
    assert torch.equal(own.logits, other.logits)
    said = [_encoding(seed, 3, width).pooled for seed in (0, 1)]
    assert torch.equal(other.readout, torch.cat([*said, own.readout], dim=-1))


def test_alternatives_are_known_once_they_are_asked_for_however_often() -> None:
    made = {other.kind.family: name for name, found in ALTERNATIVES.items() for other in found}
    assert not made.keys() & set(families)
    register()
    register()
    assert made == CHANGED
    for family, name in made.items():
        assert issubclass(families.get(family), families.get(name))


def _trained(model: PairModel, update: Update) -> set[str]:
    chosen = model.set_trainable(update)
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert {id(p) for p in chosen} == {id(p) for p in named.values()}
    return {name.partition(".")[0] for name in named}


def test_a_narrower_f_leaves_some_of_the_fusion_alone(prepared: dict[str, BenchData]) -> None:
    dataset, config = load_dataset(prepared["digits"].spec), Albef.tiny()
    projections = {"item_projection", "text_projection", "raw_temperature"}
    found = {
        kind: _trained(kind.build(config, dataset, seed=0), "fusion")
        for kind in (Albef, AlbefUnprojected, AlbefProjections)
    }
    assert found[Albef] == {*projections, "fusion_layers", "head"}
    assert found[AlbefUnprojected] == {"fusion_layers", "head"}
    assert found[AlbefProjections] == {*projections, "head"}
    models = [kind.build(config, dataset, seed=0) for kind in (Albef, AlbefProjections)]
    assert _trained(models[0], "all") == _trained(models[1], "all")
