from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from transformers import BertModel, ViTConfig, ViTModel

from engine.data.pairs import PairDataset
from engine.errors import CheckpointError, InvalidSpec
from engine.families import Albef, AlbefConfig, PairModel
from engine.inputs import Inputs
from engine.tokenizers import TokenBatch, train_tokenizer

Build = Callable[..., PairModel]


@pytest.fixture
def model(tiny: Build) -> Albef:
    built = tiny("albef")
    assert isinstance(built, Albef)
    return built


def images(model: Albef, count: int = 2) -> torch.Tensor:
    height, width = model.config.image_size
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def tokens(*rows: list[int]) -> TokenBatch:
    ids = torch.tensor(rows)
    return TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool))


def test_changing_the_last_word_moves_the_first_token_of_the_fusion_layers(model: Albef) -> None:
    seen = model.encode_items(images(model, 1))
    plain = model.encode_texts(tokens([1, 10, 11, 12, 13, 2]))
    # Only the last token before the fusion layers is changed, so that the text layers, which are
    # bidirectional in any BERT, cannot carry it to the first one.
    changed = replace(plain, tokens=plain.tokens.clone())
    changed.tokens[:, -1] += 1.0
    torch.testing.assert_close(plain.tokens[:, 0], changed.tokens[:, 0])
    moved = model.fuse(seen, plain).readout - model.fuse(seen, changed).readout
    assert moved.abs().max() > 1e-3


def test_the_text_layers_read_both_ways(model: Albef) -> None:
    first = model.encode_texts(tokens([1, 10, 11, 12])).pooled
    second = model.encode_texts(tokens([1, 10, 11, 13])).pooled
    assert (first - second).abs().max() > 1e-4


def test_changing_one_corner_of_the_image_moves_the_fused_vector(model: Albef) -> None:
    pixels = images(model, 1)
    other = pixels.clone()
    other[:, :, -4:, -4:] = 3.0
    text = model.encode_texts(tokens([1, 10, 11, 2]))
    first = model.fuse(model.encode_items(pixels), text).readout
    second = model.fuse(model.encode_items(other), text).readout
    assert (first - second).abs().max() > 1e-3


def test_padding_that_the_mask_hides_changes_nothing(model: Albef) -> None:
    seen = model.encode_items(images(model, 1))
    bare = tokens([1, 10, 11, 2])
    ids = torch.tensor([[1, 10, 11, 2, 77, 78]])
    padded = TokenBatch(ids, torch.tensor([[True, True, True, True, False, False]]))
    first = model.fuse(seen, model.encode_texts(bare)).readout
    second = model.fuse(seen, model.encode_texts(padded)).readout
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-6)


def test_half_of_the_text_layers_fuse() -> None:
    config = Albef.tiny().model_copy(update={"text_layers": 6})
    built = Albef(config, train_tokenizer(["a b"], 300))
    assert (len(built.text_layers), len(built.fusion_layers)) == (3, 3)


def test_the_published_size_is_that_of_the_paper() -> None:
    config = AlbefConfig.published()
    tokenizer = train_tokenizer(["a"], 300)
    with torch.device("meta"):
        count = sum(p.numel() for p in Albef(config, tokenizer).parameters())
    # ViT-B/16 at 384 px 86.1M, BERT-base without pooler 108.9M less 448 unused positions, six
    # cross-attentions 14.2M, two projections 0.4M.
    assert count == pytest.approx(209.2e6, rel=0.005)


def test_projections_and_temperature_are_updated_with_the_fusion(model: Albef) -> None:
    fusion = {name for name, _ in model.parts()["fusion"]}
    wanted = {"item_projection.weight", "text_projection.weight", "raw_temperature"}
    assert wanted <= fusion


def test_classes_of_the_data_set_set_the_head(image_data: PairDataset) -> None:
    built = Albef.build(Albef.tiny(), replace(image_data, classes=3), 0)
    assert built.head.out_features == 3
    wrong = Albef.tiny().model_copy(update={"classes": 4})
    with pytest.raises(InvalidSpec, match="classes is 4"):
        Albef.build(wrong, replace(image_data, classes=3), 0)


def test_a_head_says_match_or_not_where_labels_do_not_tell_more(image_data: PairDataset) -> None:
    three = Albef.tiny().model_copy(update={"classes": 3})
    for classes in (None, 1):
        data = replace(image_data, classes=classes)
        assert Albef.build(Albef.tiny(), data, 0).head.out_features == 2
        with pytest.raises(InvalidSpec, match="leave it out, or say 2"):
            Albef.build(three, data, 0)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("image_size", (20, 32), "no multiple"),
        ("heads", 3, "hidden_size 32 is no multiple of heads 3"),
        ("image_std", (0.2, 0.0, 0.2), "greater than or equal to 0.001"),
        ("text_layers", 3, "multiple of 2"),
        ("patch_size", (0, 8), "greater than or equal to 1"),
    ],
)
def test_sizes_that_contradict_each_other_are_refused(
    field: str, value: object, message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        AlbefConfig.model_validate({**Albef.tiny().model_dump(), field: value})


def test_images_of_any_size_are_brought_to_the_configured_one(
    model: Albef, image_data: PairDataset
) -> None:
    picture = image_data.items.load(image_data.pairs[0].items[0])
    table = model.prepare_items([picture, picture.resize((50, 9)), picture.convert("L")])
    pixels = table.take(torch.tensor([2, 0, 1]))
    assert pixels.shape == (3, 3, 16, 32)
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels[1], table.take(torch.tensor([0]))[0])


def test_pixels_are_normalised_by_mean_and_deviation(model: Albef) -> None:
    table = model.prepare_items([Image.new("RGB", (32, 16), "white")])
    taken = model.take(table, torch.tensor([0]))
    expected = [
        (1 - m) / s for m, s in zip(model.config.image_mean, model.config.image_std, strict=True)
    ]
    torch.testing.assert_close(taken[0, :, 0, 0], torch.tensor(expected))


def test_a_pretrained_bert_fills_text_and_fusion_layers(
    image_data: PairDataset, bert: Path
) -> None:
    config = Albef.tiny().model_copy(update={"pretrained_text": str(bert)})
    built = Albef.build(config, image_data, 0)
    source = BertModel.from_pretrained(bert)
    mine = [*built.text_layers, *built.fusion_layers]
    for layer, original in zip(mine, source.encoder.layer, strict=True):
        assert torch.equal(layer.attention.self.query.weight, original.attention.self.query.weight)
        assert torch.equal(layer.output.dense.weight, original.output.dense.weight)
    words = source.embeddings.word_embeddings.weight
    assert torch.equal(built.embeddings.word_embeddings.weight, words)


def test_a_model_from_a_pretrained_bert_loads_without_it(
    image_data: PairDataset, bert: Path, tmp_path: Path
) -> None:
    config = Albef.tiny().model_copy(update={"pretrained_text": str(bert)})
    built = Albef.build(config, image_data, 0)
    folder = tmp_path / "saved"
    folder.mkdir()
    built.save(folder)
    bert.rename(tmp_path / "gone")
    loaded = Albef.load(folder)
    assert torch.equal(loaded.head.weight, built.head.weight)


def test_a_pretrained_bert_of_another_size_is_refused(image_data: PairDataset, bert: Path) -> None:
    config = AlbefConfig.model_validate(
        {**Albef.tiny().model_dump(), "pretrained_text": str(bert), "text_layers": 4}
    )
    with pytest.raises(InvalidSpec, match="num_hidden_layers is 4"):
        Albef.build(config, image_data, 0)


def test_a_pretrained_vit_fills_the_image_encoder(image_data: PairDataset, tmp_path: Path) -> None:
    torch.manual_seed(6)
    sizes = ViTConfig(
        image_size=[16, 32],
        patch_size=[8, 8],
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
    )
    source = ViTModel(sizes)
    source.save_pretrained(tmp_path / "vit")
    config = Albef.tiny().model_copy(update={"pretrained_vision": str(tmp_path / "vit")})
    built = Albef.build(config, image_data, 0)
    assert torch.equal(built.vision.embeddings.cls_token, source.embeddings.cls_token)
    small = config.model_copy(update={"hidden_size": 16})
    with pytest.raises(InvalidSpec, match="other sizes"):
        Albef.build(small, image_data, 0)


def test_a_pretrained_name_that_is_nowhere_is_refused(
    image_data: PairDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    config = Albef.tiny().model_copy(update={"pretrained_text": "nobody/no-such-model"})
    with pytest.raises(InvalidSpec, match="nobody/no-such-model"):
        Albef.build(config, image_data, 0)


def test_a_tokenizer_with_more_words_than_the_model_is_refused(
    model: Albef, tmp_path: Path
) -> None:
    model.save(tmp_path)
    train_tokenizer([f"word{n} here" for n in range(500)], 2000).save(tmp_path, 24)
    with pytest.raises(CheckpointError, match="the tokenizer has"):
        Albef.load(tmp_path)


def test_two_images_a_pair_are_refused_by_a_model_for_one(
    model: Albef, image_pairs: PairDataset
) -> None:
    with pytest.raises(InvalidSpec, match="reads 1 image a pair"):
        Inputs(model, image_pairs)


@pytest.fixture
def two(image_pairs: PairDataset) -> Albef:
    """A model for pairs of two images: one text layer, one fusion layer of two blocks."""
    return Albef.build(Albef.tiny(), image_pairs, 0)


TEXT = [1, 10, 11, 12, 2]


def test_the_first_block_sees_image_1_and_the_second_image_2(two: Albef) -> None:
    first, second = (two.encode_items(images(two, 2)).take(torch.tensor([n])) for n in (0, 1))
    text = two.encode_texts(tokens(TEXT))
    both = two.encode_items(images(two, 2)).join(2)
    mask = text.mask[:, None, None, :]
    blocks = two.fusion_layers
    states = blocks[1](blocks[0](text.tokens, mask, first.tokens), mask, second.tokens)
    torch.testing.assert_close(two.fuse(both, text).readout, states[:, 0])


def test_the_same_image_twice_is_one_image_in_twice_as_many_layers(two: Albef) -> None:
    deep = Albef.tiny().model_copy(update={"text_layers": 4, "vocabulary": two.config.vocabulary})
    one = Albef(deep, two.tokenizer)
    for mine, block in zip(one.fusion_layers, two.fusion_layers, strict=True):
        mine.load_state_dict(block.state_dict(), strict=False)
    shared = {
        name.removeprefix("0."): weight
        for name, weight in two.fusion_layers.state_dict().items()
        if name.startswith(("0.crossattention.self.key", "0.crossattention.self.value"))
    }
    one.fusion_layers[1].load_state_dict(shared, strict=False)
    one.head.load_state_dict(two.head.state_dict())
    seen, text = two.encode_items(images(two, 1)), two.encode_texts(tokens(TEXT))
    twice = two.encode_items(images(two, 1).repeat(2, 1, 1, 1)).join(2)
    torch.testing.assert_close(two.fuse(twice, text).readout, one.fuse(seen, text).readout)


def test_the_two_blocks_share_keys_and_values_as_one_parameter(two: Albef, tmp_path: Path) -> None:
    cross = [name for name, _ in two.named_parameters() if ".crossattention.self." in name]
    kinds = [
        name.removeprefix("fusion_layers.").replace("crossattention.self.", "") for name in cross
    ]
    weights = {kind for kind in kinds if kind.endswith(".weight")}
    assert weights == {"0.query.weight", "0.key.weight", "0.value.weight", "1.query.weight"}
    two.save(tmp_path)
    for model in (two, two.clone(), Albef.load(tmp_path)):
        first, second = (
            model.fusion_layers[n].get_submodule("crossattention.self") for n in (0, 1)
        )
        assert first.key is second.key
        assert first.value is second.value
        assert first.query is not second.query


def test_the_shared_keys_learn_from_both_images(two: Albef) -> None:
    text = two.encode_texts(tokens(TEXT))
    both = two.encode_items(images(two, 2)).join(2)
    # The first block is taken out of the way: what its keys learn, they learn from the second.
    two.fusion_layers[0].forward = lambda states, *_: states  # type: ignore[method-assign]
    two.fuse(both, text).readout.square().sum().backward()
    gradient = two.fusion_layers[0].get_submodule("crossattention.self.key").weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_a_pretrained_bert_fills_both_blocks_of_a_layer(
    image_pairs: PairDataset, bert: Path
) -> None:
    config = Albef.tiny().model_copy(update={"pretrained_text": str(bert)})
    built = Albef.build(config, image_pairs, 0)
    source = BertModel.from_pretrained(bert).encoder.layer[1].output.dense.weight
    for block in built.fusion_layers:
        assert torch.equal(block.get_submodule("output.dense").weight, source)
