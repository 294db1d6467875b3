import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BlipForImageTextRetrieval
from transformers import BlipConfig as Layout
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from engine.data.pairs import PairDataset
from engine.errors import CheckpointError, InvalidSpec
from engine.families import Blip, BlipConfig, PairModel
from engine.families.blip_sizes import fields_of, own_sizes
from engine.inputs import Inputs
from engine.tokenizers import BERT, TextTokenizer, TokenBatch, train_tokenizer

Build = Callable[..., PairModel]


@pytest.fixture
def model(tiny: Build) -> Blip:
    built = tiny("blip")
    assert isinstance(built, Blip)
    return built


def pixels(model: Blip, count: int = 2) -> torch.Tensor:
    side = model.config.image_size
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def tokens(*rows: list[int]) -> TokenBatch:
    """Rows of ids; 0 is padding."""
    ids = torch.tensor(rows)
    return TokenBatch(ids, ids != 0)


WORDS = tokens([1, 10, 11, 12, 13, 2], [1, 14, 2, 0, 0, 0])


def with_enc(model: Blip, batch: TokenBatch) -> torch.Tensor:
    ids = batch.ids.clone()
    ids[:, 0] = model.enc_id
    return ids


def assert_equal_outputs(model: Blip, other: BlipForImageTextRetrieval) -> None:
    """ITM logits, fused vectors and ITC cosines are equal to 1e-5."""
    seen = pixels(model)
    item, text = model.encode_items(seen), model.encode_texts(WORDS)
    fused = model.fuse(item, text)
    mask = WORDS.mask.long()
    with torch.no_grad():
        # transformers leaves it to the caller to put [ENC] in the place of [CLS].
        itm = other(with_enc(model, WORDS), seen, use_itm_head=True, attention_mask=mask)
        itc = other(WORDS.ids, seen, use_itm_head=False, attention_mask=mask)
    torch.testing.assert_close(fused.logits, itm.itm_score, rtol=0, atol=1e-5)
    torch.testing.assert_close(fused.readout, itm.question_embeds[:, 0], rtol=0, atol=1e-5)
    items, texts = model.project(item, text)
    torch.testing.assert_close(items @ texts.T, itc.itm_score, rtol=0, atol=1e-5)


def test_transformers_loads_what_we_save_and_says_the_same(model: Blip, tmp_path: Path) -> None:
    model.save(tmp_path)
    other, report = BlipForImageTextRetrieval.from_pretrained(
        tmp_path, output_loading_info=True, use_safetensors=True
    )
    assert not report["missing_keys"]
    assert not report["mismatched_keys"]
    assert set(report["unexpected_keys"]) == {"raw_temperature"}
    assert_equal_outputs(model, other.eval())


def test_what_transformers_has_no_class_for_says_so_and_is_loaded_by_us(
    image_data: PairDataset, image_pairs: PairDataset, tmp_path: Path
) -> None:
    """A head of three classes, and a second image, which transformers would leave out unasked."""
    for name, data in (("three", replace(image_data, classes=3)), ("two", image_pairs)):
        built, folder = Blip.build(Blip.tiny(), data, 0), tmp_path / name
        folder.mkdir()
        built.save(folder)
        assert json.loads((folder / "config.json").read_text())["architectures"] is None
        again = Blip.load(folder).state_dict()
        assert all(torch.equal(weight, again[n]) for n, weight in built.state_dict().items())


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A BLIP as transformers publishes one: no [ENC] in its tokenizer, two more ids in its table."""
    folder = tmp_path / "published"
    tokenizer = train_tokenizer(["one two three", "four five"], 300, BERT)
    config = Blip.tiny().model_copy(update={"vocabulary": tokenizer.vocabulary + 2})
    sizes = own_sizes(config, tokenizer)
    sizes.text_config.layer_norm_eps = 1e-6
    torch.manual_seed(3)
    BlipForImageTextRetrieval(sizes).save_pretrained(folder)
    tokenizer.save(folder, 24)
    return folder


def test_we_load_what_transformers_saves_and_say_the_same(published: Path) -> None:
    model = Blip.load(published)
    assert model.config.temperature == 0.07
    assert model.enc_id == model.config.vocabulary - 1
    assert_equal_outputs(model, BlipForImageTextRetrieval.from_pretrained(published).eval())


def test_a_model_starts_from_a_published_one_and_takes_its_sizes(
    published: Path, image_data: PairDataset
) -> None:
    built = Blip.build(BlipConfig(pretrained=str(published), dropout=0.1), image_data, 0)
    assert built.config == Blip.tiny().model_copy(
        update={
            "pretrained": str(published),
            "dropout": 0.1,
            "vocabulary": built.config.vocabulary,
            "classes": 2,
            "images": 1,
        }
    )
    dropped = {m.p for m in built.modules() if isinstance(m, torch.nn.Dropout)}
    assert dropped == {0.1}
    assert_equal_outputs(built, BlipForImageTextRetrieval.from_pretrained(published).eval())


def test_a_head_for_classes_starts_anew(published: Path, image_data: PairDataset) -> None:
    source = BlipForImageTextRetrieval.from_pretrained(published)
    config = BlipConfig(pretrained=str(published))
    three = Blip.build(config, replace(image_data, classes=3), 0)
    assert three.itm_head.out_features == 3
    two = Blip.build(config, replace(image_data, classes=2), 0)
    assert not torch.equal(two.itm_head.weight, source.itm_head.weight)
    assert torch.equal(two.text_proj.weight, source.text_proj.weight)


def test_both_cross_attentions_start_from_the_published_one(
    published: Path, image_pairs: PairDataset
) -> None:
    built = Blip.build(BlipConfig(pretrained=str(published)), image_pairs, 0)
    source = BlipForImageTextRetrieval.from_pretrained(published).text_encoder.encoder.layer
    assert len(built.second_image) == len(source) == 2
    for second, layer in zip(built.second_image, source, strict=True):
        published_weights = layer.crossattention.self.key.weight
        assert torch.equal(second.attention.key.weight, published_weights)
        assert torch.equal(second.dense.weight, layer.crossattention.output.dense.weight)


def test_cross_attentions_are_averaged_in_the_first_layers_and_joined_in_the_last(
    image_pairs: PairDataset,
) -> None:
    config = Blip.tiny().model_copy(update={"text_layers": 4})
    built = Blip.build(config, image_pairs, 0)
    assert [second.merge is not None for second in built.second_image] == [False, False, True, True]


def test_two_equal_images_with_equal_weights_say_what_one_says(
    model: Blip, image_pairs: PairDataset
) -> None:
    # Averaging two equal outputs is the output; so a layer without a joining matrix, whose two
    # cross-attentions are alike, gives what one image gives.
    config = Blip.tiny().model_copy(update={"text_layers": 2})
    two = Blip.build(config, image_pairs, 0)
    one = Blip(two.config.model_copy(update={"images": 1}), two.sizes, two.tokenizer)
    one.load_state_dict(two.state_dict(), strict=False)
    two._start_second_images()
    two.second_image[1].merge = None
    seen, text = one.encode_items(pixels(one)), one.encode_texts(WORDS)
    twice = one.encode_items(pixels(one).repeat_interleave(2, dim=0)).join(2)
    expected, found = one.fuse(seen, text), two.fuse(twice, text)
    torch.testing.assert_close(found.readout, expected.readout, rtol=0, atol=1e-5)


def test_changing_the_last_token_moves_the_first_tokens_fusion_output(model: Blip) -> None:
    seen = model.encode_items(pixels(model, 1))
    plain = model.encode_texts(tokens([1, 10, 11, 12, 13, 2]))
    changed = model.encode_texts(tokens([1, 10, 11, 12, 14, 2]))
    # Fusion starts from embeddings, in which no other token has changed: a causal text model would
    # leave its first token as it is.
    assert torch.equal(plain.tokens[:, :4], changed.tokens[:, :4])
    moved = model.fuse(seen, plain).readout - model.fuse(seen, changed).readout
    assert moved.abs().max() > 1e-4


def test_the_text_alone_is_read_both_ways(model: Blip) -> None:
    first = model.encode_texts(tokens([1, 10, 11, 12])).pooled
    second = model.encode_texts(tokens([1, 10, 11, 13])).pooled
    assert (first - second).abs().max() > 1e-4


def test_changing_one_corner_of_the_image_moves_the_fused_vector(model: Blip) -> None:
    seen = pixels(model, 1)
    other = seen.clone()
    other[:, :, -4:, -4:] = 3.0
    text = model.encode_texts(tokens([1, 10, 11, 2]))
    first = model.fuse(model.encode_items(seen), text).readout
    second = model.fuse(model.encode_items(other), text).readout
    assert (first - second).abs().max() > 1e-4


def test_fusion_starts_with_enc_and_the_text_alone_with_cls(model: Blip) -> None:
    assert model.enc_id == model.tokenizer.id_of("[ENC]") != model.tokenizer.id_of("[CLS]")
    text = model.encode_texts(WORDS)
    embedded = model.text_encoder.embeddings(input_ids=with_enc(model, WORDS))
    assert torch.equal(text.tokens, embedded)
    alone = model.text_encoder(input_ids=WORDS.ids, attention_mask=WORDS.mask.long())
    assert torch.equal(text.pooled, alone.last_hidden_state[:, 0])


def test_fusion_is_the_cross_attention_the_projections_and_the_head(
    image_pairs: PairDataset,
) -> None:
    built = Blip.build(Blip.tiny(), image_pairs, 0)
    parts = {part: {name for name, _ in members} for part, members in built.parts().items()}
    assert all(
        ".crossattention." in name
        or name.startswith(("second_image.", "vision_proj.", "text_proj.", "raw_temperature"))
        for name in parts["fusion"]
    )
    assert len([name for name in parts["fusion"] if ".crossattention.self.query.w" in name]) == 2
    assert parts["head"] == {"itm_head.weight", "itm_head.bias"}
    assert not any("crossattention" in name for name in parts["text"])


def test_pixels_are_those_of_the_image_processor_of_transformers(
    model: Blip, image_data: PairDataset, tmp_path: Path
) -> None:
    model.save(tmp_path)
    picture = image_data.items.load(image_data.pairs[0].items[0]).resize((41, 23))
    ours = model.take(model.prepare_items([picture]), torch.tensor([0]))
    theirs = BlipImageProcessorPil.from_pretrained(tmp_path)(picture)["pixel_values"][0]
    torch.testing.assert_close(ours[0], torch.from_numpy(np.asarray(theirs)), rtol=0, atol=1e-5)


def test_transformers_reads_the_tokenizer(model: Blip, tmp_path: Path) -> None:
    model.save(tmp_path)
    text = "a red circle, nothing else"
    reader = AutoTokenizer.from_pretrained(tmp_path)
    theirs = reader(text, truncation=True)["input_ids"]
    table = model.prepare_texts([text])
    assert table.ids[0].tolist() == theirs


def test_a_checkpoint_names_no_folder_of_the_machine_that_made_it(
    published: Path, image_data: PairDataset, tmp_path: Path
) -> None:
    built = Blip.build(BlipConfig(pretrained=str(published)), image_data, 0)
    folder = tmp_path / "saved"
    folder.mkdir()
    built.save(folder)
    described = json.loads((folder / "config.json").read_text())
    assert described["lethe"].pop("pretrained") == str(published)
    assert str(tmp_path) not in json.dumps(described)


def test_weights_without_cross_attention_are_refused(
    published: Path, image_data: PairDataset
) -> None:
    config = json.loads((published / "config.json").read_text())
    config["text_config"]["is_decoder"] = False
    (published / "config.json").write_text(json.dumps(config))
    # Whatever the folder says of itself, the weights have it.
    Blip.build(BlipConfig(pretrained=str(published)), image_data, 0)
    other = BlipForImageTextRetrieval.from_pretrained(published)
    assert not any("crossattention" in name for name in other.state_dict())
    other.save_pretrained(published)
    with pytest.raises(InvalidSpec, match="crossattention"):
        Blip.build(BlipConfig(pretrained=str(published)), image_data, 0)
    with pytest.raises(CheckpointError, match="crossattention"):
        Blip.load(published)


@pytest.mark.parametrize("damage", ["{", "[1]", '{"model_type": "blip", "text_config": 3}'])
def test_a_damaged_configuration_is_a_checkpoint_error(
    model: Blip, tmp_path: Path, damage: str
) -> None:
    model.save(tmp_path)
    (tmp_path / "config.json").write_text(damage)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        Blip.load(tmp_path)


def test_our_part_of_the_configuration_must_be_an_object(model: Blip, tmp_path: Path) -> None:
    model.save(tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**described, "lethe": [1]}))
    with pytest.raises(CheckpointError, match="an object under 'lethe'"):
        Blip.load(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("image_size", 20, "image_size 20 is no multiple of patch_size 8"),
        ("vision_heads", 5, "vision_size 48 is no multiple of vision_heads 5"),
        ("text_heads", 5, "text_size 32 is no multiple of text_heads 5"),
    ],
)
def test_sizes_that_contradict_each_other_are_refused(field: str, value: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BlipConfig.model_validate({**Blip.tiny().model_dump(), field: value})


def test_without_any_id_for_enc_the_start_token_stands_in(published: Path, model: Blip) -> None:
    plain = TextTokenizer.load(published)
    same = model.config.model_copy(update={"vocabulary": plain.vocabulary})
    assert Blip(same, own_sizes(same, plain), plain).enc_id == plain.id_of("[CLS]") == 1


def test_pairs_that_differ_in_the_number_of_images_are_refused(
    image_data: PairDataset, image_pairs: PairDataset
) -> None:
    mixed = replace(image_data, pairs=[*image_data.pairs[:3], *image_pairs.pairs[:3]])
    with pytest.raises(InvalidSpec, match=r"or every pair 2; pairs of .* have 1 or 2"):
        Blip.build(Blip.tiny(), mixed, 0)
    one = Blip.tiny().model_copy(update={"images": 1})
    with pytest.raises(InvalidSpec, match=r"config\.images is 1; .* have 2"):
        Blip.build(one, image_pairs, 0)


def test_a_model_for_one_image_refuses_pairs_of_two(model: Blip, image_pairs: PairDataset) -> None:
    with pytest.raises(InvalidSpec, match="reads 1 image a pair"):
        Inputs(model, image_pairs)


@pytest.mark.parametrize(("width", "layers"), [(768, 12), (1024, 24)])
def test_published_sizes_are_within_our_bounds(width: int, layers: int) -> None:
    vision = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 16}
    sizes = Layout(vision_config={**vision, "intermediate_size": 4 * width})
    config = BlipConfig.model_validate(fields_of(sizes, BlipConfig()))
    assert (config.image_size, config.vision_size, config.vocabulary) == (384, width, 30524)
