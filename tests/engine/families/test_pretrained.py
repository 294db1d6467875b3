import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ViTConfig, ViTModel

from engine.data.pairs import PairDataset
from engine.errors import CheckpointError, EngineError, InvalidSpec
from engine.families import (
    Albef,
    AlbefConfig,
    BlipConfig,
    ClipConfig,
    FamilyConfig,
    GcnBert,
    families,
    pretrained,
)
from engine.tokenizers import train_tokenizer


def test_a_bert_is_loaded_whole_and_in_single_precision(bert: Path) -> None:
    path = bert / "model.safetensors"
    expected = load_file(path)
    save_file({n: w.bfloat16() for n, w in expected.items()}, path, metadata={"format": "pt"})
    loaded = pretrained.load_bert(bert)
    found = loaded.embeddings.word_embeddings.weight
    assert found.dtype == torch.float32
    assert torch.equal(found, expected["embeddings.word_embeddings.weight"].bfloat16().float())
    assert loaded.pooler is None
    assert not loaded.training


def changed(folder: Path, **fields: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **fields}))


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no configuration": lambda folder: (folder / "config.json").unlink(),
    "no JSON": lambda folder: (folder / "config.json").write_text("{"),
    "a list": lambda folder: (folder / "config.json").write_text("[1]"),
    "a wrong type": lambda folder: changed(folder, hidden_size="wide"),
    "no kind": lambda folder: changed(folder, model_type=None),
    "other sizes": lambda folder: changed(folder, hidden_size=64),
    "fewer weights": lambda folder: changed(folder, num_hidden_layers=3),
    "no weights": lambda folder: (folder / "model.safetensors").unlink(),
    "cut weights": lambda folder: (folder / "model.safetensors").write_bytes(b"abc"),
    "pickled weights": pickled,
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_a_damaged_folder_is_an_invalid_spec_that_names_it(bert: Path, damage: str) -> None:
    DAMAGES[damage](bert)
    with pytest.raises(InvalidSpec) as caught:
        pretrained.load_bert(bert)
    assert f"the pretrained model in {bert.name} " in str(caught.value)
    assert str(bert.parent) not in str(caught.value)  # whoever asks may not know where it lies


def test_weights_that_are_not_there_are_named_and_never_drawn(bert: Path) -> None:
    changed(bert, num_hidden_layers=3)
    with pytest.raises(InvalidSpec, match=r"lacks 16 weights of BertModel.*encoder\.layer\.2\."):
        pretrained.load_bert(bert)


CONFIGS: list[FamilyConfig] = [
    AlbefConfig(pretrained="{}"),
    AlbefConfig(pretrained_vision="{}", hidden_size=32, heads=2, text_layers=2),
    BlipConfig(pretrained="{}"),
    ClipConfig(pretrained="{}"),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: type(config).__name__)
def test_a_model_of_another_kind_is_refused_with_a_sentence(
    config: FamilyConfig, bert: Path, image_data: PairDataset
) -> None:
    kind = next(k for k in map(families.get, families) if k.config_class is type(config))
    filled = {
        name: str(bert) if value == "{}" else value for name, value in config.model_dump().items()
    }
    with pytest.raises(
        EngineError, match=r"of the kind 'bert'|faults, the first: add_cross_attention"
    ):
        kind.build(kind.config_class.model_validate(filled), image_data, 0)


def test_a_vit_is_no_text_model(
    image_data: PairDataset, graph_data: PairDataset, tmp_path: Path
) -> None:
    folder = tmp_path / "vit"
    sizes = ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=16)
    ViTModel(sizes).save_pretrained(folder)
    train_tokenizer(["one"], 300).save(folder, 24)
    text = Albef.tiny().model_copy(update={"pretrained_text": str(folder)})
    with pytest.raises(InvalidSpec, match="of the kind 'vit'; 'bert' is needed"):
        Albef.build(text, image_data, 0)
    frozen = GcnBert.tiny().model_copy(update={"pretrained": str(folder)})
    with pytest.raises(InvalidSpec, match="of the kind 'vit'; 'bert' is needed"):
        GcnBert.build(frozen, graph_data, 0)


def test_a_pretrained_folder_without_tokenizer_is_refused(
    bert: Path, image_data: PairDataset
) -> None:
    (bert / "tokenizer.json").unlink()
    config = Albef.tiny().model_copy(update={"pretrained_text": str(bert)})
    with pytest.raises(EngineError, match=r"tokenizer\.json cannot be read"):
        Albef.build(config, image_data, 0)


def test_below_a_root_a_name_is_that_of_a_folder_in_it(bert: Path) -> None:
    with pretrained.below(bert.parent):
        assert pretrained.resolve("bert") == bert
    assert pretrained.resolve(str(bert)) == bert


@pytest.mark.parametrize(
    "name", ["{root}/bert", "../root/bert", "org/bert", ".", "", "none", "out"]
)
def test_below_a_root_no_name_leads_anywhere_else(bert: Path, name: str) -> None:
    root = bert.parent / "root"
    root.mkdir()
    bert.rename(root / "bert")
    outside = bert.parent / "outside"
    outside.mkdir()
    (root / "out").symlink_to(outside)
    with (
        pretrained.below(root),
        pytest.raises(InvalidSpec, match=r"no pretrained model .* among those of this machine"),
    ):
        pretrained.resolve(name.format(root=root))


def test_a_start_is_recorded_by_its_digest_and_held_to_it(bert: Path) -> None:
    config = Albef.tiny().model_copy(update={"pretrained_text": str(bert)})
    recorded = pretrained.started_from(config)
    assert [one["field"] for one in recorded] == ["pretrained_text"]
    assert recorded[0]["sha256"] == pretrained.digest(bert)
    assert pretrained.started_from(Albef.tiny()) == []
    pretrained.verify_start(config, recorded)
    pretrained.verify_start(config, [])
    changed(bert, hidden_act="relu")
    with pytest.raises(CheckpointError, match=r"pretrained_text with SHA-256 .* install that"):
        pretrained.verify_start(config, recorded)
    with pytest.raises(CheckpointError, match="cannot be repeated"):
        gone = config.model_copy(update={"pretrained_text": "/nowhere/at all"})
        pretrained.verify_start(gone, recorded)


@pytest.mark.parametrize("recorded", [7, ["x"], [{"field": "pretrained"}], None])
def test_a_record_of_starts_that_is_none_is_refused(recorded: object) -> None:
    with pytest.raises(CheckpointError, match="must list field and sha256"):
        pretrained.verify_start(Albef.tiny(), recorded)
