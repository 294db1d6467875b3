import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, CLIPModel
from transformers import CLIPConfig as Layout
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from engine.data.pairs import PairDataset
from engine.errors import CheckpointError, InvalidSpec
from engine.families import Clip, ClipConfig, Encoding, PairModel
from engine.families.clip import END, SPECIAL, START, _fields, _own_sizes
from engine.inputs import Inputs
from engine.tokenizers import SpecialTokens, TokenBatch, train_tokenizer

Build = Callable[..., PairModel]


@pytest.fixture
def model(tiny: Build) -> Clip:
    built = tiny("clip")
    assert isinstance(built, Clip)
    return built


def pixels(model: Clip, count: int = 2) -> torch.Tensor:
    side = model.config.image_size
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def words(model: Clip, *rows: list[int]) -> TokenBatch:
    """Rows of ids between start and end, filled up with the padding id."""
    longest = max(len(row) for row in rows) + 2
    start, end = model.tokenizer.id_of(START), model.tokenizer.id_of(END)
    full = [[start, *row, end] for row in rows]
    ids = [row + [model.tokenizer.pad_id] * (longest - len(row)) for row in full]
    lengths = torch.tensor([len(row) for row in full])
    return TokenBatch(torch.tensor(ids), torch.arange(longest)[None] < lengths[:, None])


def assert_equal_outputs(model: Clip, other: CLIPModel) -> None:
    """Unit vectors and scaled cosines are equal to 1e-5."""
    seen, batch = pixels(model), words(model, [10, 11, 12, 13], [14])
    item, text = model.encode_items(seen), model.encode_texts(batch)
    items, texts = model.project(item, text)
    with torch.no_grad():
        theirs = other(input_ids=batch.ids, pixel_values=seen, attention_mask=batch.mask.long())
    torch.testing.assert_close(items, theirs.image_embeds, rtol=0, atol=1e-5)
    torch.testing.assert_close(texts, theirs.text_embeds, rtol=0, atol=1e-5)
    scaled = items @ texts.T / model.temperature
    torch.testing.assert_close(scaled, theirs.logits_per_image, rtol=0, atol=1e-4)


def test_transformers_loads_what_we_save_and_says_the_same(model: Clip, tmp_path: Path) -> None:
    model.save(tmp_path)
    other, report = CLIPModel.from_pretrained(
        tmp_path, output_loading_info=True, use_safetensors=True
    )
    assert not any(report[kind] for kind in ("missing_keys", "mismatched_keys", "unexpected_keys"))
    assert_equal_outputs(model, other.eval())


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A CLIP as transformers saves one, of another activation and with fewer positions."""
    folder = tmp_path / "published"
    tokenizer = train_tokenizer(["one two three", "four five"], 300, SPECIAL)
    config = Clip.tiny().model_copy(
        update={"vocabulary": tokenizer.vocabulary, "max_text_tokens": 12}
    )
    sizes = _own_sizes(config, tokenizer)
    sizes.text_config.hidden_act = sizes.vision_config.hidden_act = "gelu"
    sizes.logit_scale_init_value = 3.0
    torch.manual_seed(3)
    CLIPModel(sizes).save_pretrained(folder)
    tokenizer.save(folder, 12)
    return folder


def test_we_load_what_transformers_saves_and_say_the_same(published: Path) -> None:
    model = Clip.load(published)
    assert model.config.max_text_tokens == 12
    assert model.temperature.item() == pytest.approx(math.exp(-3))
    assert_equal_outputs(model, CLIPModel.from_pretrained(published).eval())


def test_a_model_starts_from_a_published_one_and_takes_its_sizes(
    published: Path, image_data: PairDataset
) -> None:
    built = Clip.build(ClipConfig(pretrained=str(published), dropout=0.1), image_data, 0)
    assert built.config == Clip.tiny().model_copy(
        update={
            "pretrained": str(published),
            "dropout": 0.1,
            "vocabulary": built.config.vocabulary,
            "max_text_tokens": 12,
        }
    )
    assert_equal_outputs(built, CLIPModel.from_pretrained(published).eval())


def test_the_text_is_read_at_its_first_end(model: Clip) -> None:
    short = model.encode_texts(words(model, [10, 11]))
    padded = model.encode_texts(words(model, [10, 11], [10, 11, 12, 13]))
    torch.testing.assert_close(short.pooled[0], padded.pooled[0], rtol=1e-4, atol=1e-6)
    assert torch.equal(short.pooled[0], short.tokens[0, 3])


def test_the_end_token_has_not_the_id_that_transformers_takes_for_a_mistake(model: Clip) -> None:
    end = model.tokenizer.id_of(END)
    assert end == model.sizes.text_config.eos_token_id != 2
    # Another id that is larger must not be taken for the end.
    ids = torch.tensor([[1, 290, 10, end]])
    made = model.encode_texts(TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool)))
    assert torch.equal(made.pooled[0], made.tokens[0, 3])


def test_every_word_reaches_the_text_vector(model: Clip) -> None:
    plain = model.encode_texts(words(model, [10, 11, 12])).pooled
    for changed in ([9, 11, 12], [10, 9, 12], [10, 11, 9]):
        other = model.encode_texts(words(model, changed)).pooled
        assert (plain - other).abs().max() > 1e-4


def test_the_readout_is_the_product_whose_mean_is_the_cosine(model: Clip) -> None:
    # With projections that keep the first coordinates, the vectors can be followed by hand.
    with torch.no_grad():
        for projection in (model.visual_projection, model.text_projection):
            projection.weight.copy_(torch.eye(16, projection.in_features))
        model.logit_scale.fill_(math.log(10))
    item, text = torch.zeros(1, 48), torch.zeros(1, 32)
    item[0, :2], text[0, :2] = torch.tensor([3.0, 4.0]), torch.tensor([5.0, 0.0])
    one = torch.ones(1, 1, dtype=torch.bool)
    fused = model.fuse(Encoding(item[:, None], one, item), Encoding(text[:, None], one, text))
    # (0.6, 0.8) times (1, 0) is (0.6, 0), times p = 16 is (9.6, 0); cosine 0.6, over 0.1 is 6.
    expected = torch.zeros(1, 16)
    expected[0, 0] = 9.6
    torch.testing.assert_close(fused.readout, expected)
    torch.testing.assert_close(fused.readout.mean(), torch.tensor(0.6))
    torch.testing.assert_close(fused.logits, torch.tensor([[0.0, 6.0]]))


def test_the_temperature_goes_no_lower_than_that_of_clip(model: Clip) -> None:
    assert model.temperature.item() == pytest.approx(0.07)
    with torch.no_grad():
        model.logit_scale.fill_(9.0)
    assert model.temperature.item() == pytest.approx(0.01)


def test_fusion_is_the_projections_and_the_scale(model: Clip) -> None:
    fusion = {name for name, _ in model.parts()["fusion"]}
    assert fusion == {"visual_projection.weight", "text_projection.weight", "logit_scale"}
    assert not model.parts()["head"]
    assert not model.matching
    assert not model.classifies


@pytest.mark.parametrize("size", [(41, 23), (23, 41), (64, 64), (9, 50), (7, 7)])
def test_pixels_are_those_of_the_image_processor_of_transformers(
    model: Clip, image_data: PairDataset, tmp_path: Path, size: tuple[int, int]
) -> None:
    model.save(tmp_path)
    picture = image_data.items.load(image_data.pairs[0].items[0]).resize(size)
    ours = model.take(model.prepare_items([picture]), torch.tensor([0]))
    theirs = CLIPImageProcessorPil.from_pretrained(tmp_path)(picture)["pixel_values"][0]
    torch.testing.assert_close(ours[0], torch.from_numpy(np.asarray(theirs)), rtol=0, atol=1e-5)


def test_transformers_reads_the_tokenizer(model: Clip, tmp_path: Path) -> None:
    model.save(tmp_path)
    text = "red and blue"
    reader = AutoTokenizer.from_pretrained(tmp_path)
    theirs = reader(text, truncation=True)["input_ids"]
    assert model.prepare_texts([text]).ids[0].tolist() == theirs
    assert reader.eos_token_id == reader.pad_token_id == model.tokenizer.pad_id


def test_two_images_a_pair_are_refused(model: Clip, image_pairs: PairDataset) -> None:
    with pytest.raises(InvalidSpec, match="reads 1 image a pair"):
        Inputs(model, image_pairs)


def test_a_checkpoint_of_another_kind_is_refused(model: Clip, tmp_path: Path) -> None:
    model.save(tmp_path)
    described = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**described, "model_type": "blip"}))
    with pytest.raises(CheckpointError, match="of the kind 'blip'; 'clip' is needed"):
        Clip.load(tmp_path)


def test_a_tokenizer_without_the_tokens_of_clip_is_refused(model: Clip, tmp_path: Path) -> None:
    model.save(tmp_path)
    train_tokenizer(["one two"], 300).save(tmp_path, 24)
    with pytest.raises(CheckpointError, match=r"no <\|endoftext\|> token"):
        Clip.load(tmp_path)


BIG_G = {"hidden_size": 1664, "intermediate_size": 8192, "num_hidden_layers": 48, "patch_size": 14}


@pytest.mark.parametrize("vision", [{}, {**BIG_G, "num_attention_heads": 16}], ids=["B/32", "G/14"])
def test_published_sizes_are_within_our_bounds(vision: dict[str, int]) -> None:
    config = ClipConfig.model_validate(_fields(Layout(vision_config=vision), ClipConfig()))
    assert config.vision_size == vision.get("hidden_size", 768)
    assert config.vocabulary == 49408


def test_the_end_is_found_under_the_wrong_id_of_the_first_published_configurations() -> None:
    # They say that the end has the id 2; it has the highest one of the vocabulary.
    last = SpecialTokens("!", START, "zz", kinds=("bos", "eos"))
    tokenizer = train_tokenizer(["one two"], 300, last)
    config = Clip.tiny().model_copy(update={"vocabulary": 300})
    sizes = _own_sizes(config, tokenizer)
    sizes.text_config.eos_token_id = 2
    model = Clip(config, sizes, tokenizer)
    ids = torch.tensor([[1, 10, 299, 299], [1, 10, 11, 299]])
    made = model.encode_texts(TokenBatch(ids, torch.ones_like(ids, dtype=torch.bool)))
    assert torch.equal(made.pooled[0], made.tokens[0, 2])
    assert torch.equal(made.pooled[1], made.tokens[1, 3])
