"""The converter against a plain forward pass over the authors' state dict, at tiny size."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from engine.checkpoints import load_checkpoint
from engine.data.pairs import PairDataset
from engine.errors import CheckpointError, InvalidSpec
from engine.families import Albef, AlbefConfig
from engine.families.albef_convert import convert, main, read_state
from engine.tokenizers import TextTokenizer, TokenBatch, train_tokenizer

State = dict[str, Tensor]
D, HEADS, FFN, P, PATCH, SIDE = 16, 2, 64, 8, 8, 16
VISION_LAYERS, TEXT_LAYERS, POSITIONS = 2, 4, 12


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return train_tokenizer(["one two three"], 300)


@pytest.fixture
def state(tokenizer: TextTokenizer) -> State:
    """Random weights under the authors' names, with what they save beside them."""
    draw = torch.Generator().manual_seed(2)

    def weight(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw) * 0.2

    made: State = {
        "visual_encoder.cls_token": weight(1, 1, D),
        "visual_encoder.pos_embed": weight(1, (SIDE // PATCH) ** 2 + 1, D),
        "temp": torch.tensor(0.05),
    }

    def linear(name: str, out: int, width: int) -> None:
        made[f"{name}.weight"], made[f"{name}.bias"] = weight(out, width), weight(out)

    def norm(name: str) -> None:
        made[f"{name}.weight"], made[f"{name}.bias"] = 1 + weight(D), weight(D)

    made["visual_encoder.patch_embed.proj.weight"] = weight(D, 3, PATCH, PATCH)
    made["visual_encoder.patch_embed.proj.bias"] = weight(D)
    for number in range(VISION_LAYERS):
        block = f"visual_encoder.blocks.{number}"
        norm(f"{block}.norm1")
        norm(f"{block}.norm2")
        linear(f"{block}.attn.qkv", 3 * D, D)
        linear(f"{block}.attn.proj", D, D)
        linear(f"{block}.mlp.fc1", FFN, D)
        linear(f"{block}.mlp.fc2", D, FFN)
    norm("visual_encoder.norm")
    words = "text_encoder.embeddings"
    made[f"{words}.word_embeddings.weight"] = weight(tokenizer.vocabulary, D)
    made[f"{words}.position_embeddings.weight"] = weight(POSITIONS, D)
    made[f"{words}.token_type_embeddings.weight"] = weight(2, D)
    made[f"{words}.position_ids"] = torch.arange(POSITIONS)[None]
    norm(f"{words}.LayerNorm")
    for number in range(TEXT_LAYERS):
        layer = f"text_encoder.encoder.layer.{number}"
        fuses = number >= TEXT_LAYERS // 2
        for attention in ("attention", "crossattention") if fuses else ("attention",):
            for part in ("query", "key", "value"):
                linear(f"{layer}.{attention}.self.{part}", D, D)
            linear(f"{layer}.{attention}.output.dense", D, D)
            norm(f"{layer}.{attention}.output.LayerNorm")
        linear(f"{layer}.intermediate.dense", FFN, D)
        linear(f"{layer}.output.dense", D, FFN)
        norm(f"{layer}.output.LayerNorm")
    linear("vision_proj", P, D)
    linear("text_proj", P, D)
    linear("itm_head", 2, D)
    copies = {name.replace(".", "_m.", 1): w for name, w in made.items() if "." in name}
    queues = {"image_queue": weight(P, 5), "queue_ptr": torch.zeros(1), "idx_queue": weight(1, 5)}
    return made | copies | queues | {"text_encoder.cls.predictions.bias": weight(3)}


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def norm(state: State, name: str, x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    split = [t.view(*t.shape[:2], HEADS, D // HEADS).transpose(1, 2) for t in (q, k, v)]
    scores = split[0] @ split[1].transpose(-1, -2) / math.sqrt(D // HEADS)
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None, :], float("-inf"))
    return (scores.softmax(-1) @ split[2]).transpose(1, 2).flatten(2)


def plain_vit(state: State, pixels: Tensor) -> Tensor:
    """A ViT as in timm: pre-norm blocks, one matrix for query, key and value."""
    patches = F.unfold(pixels, PATCH, stride=PATCH).transpose(1, 2)
    kernel = state["visual_encoder.patch_embed.proj.weight"].flatten(1)
    x = patches @ kernel.T + state["visual_encoder.patch_embed.proj.bias"]
    x = torch.cat([state["visual_encoder.cls_token"].expand(len(x), -1, -1), x], dim=1)
    x = x + state["visual_encoder.pos_embed"]
    for number in range(VISION_LAYERS):
        block = f"visual_encoder.blocks.{number}"
        qkv = linear(state, f"{block}.attn.qkv", norm(state, f"{block}.norm1", x, 1e-6))
        x = x + linear(state, f"{block}.attn.proj", attend(*qkv.chunk(3, dim=-1)))
        wide = gelu(linear(state, f"{block}.mlp.fc1", norm(state, f"{block}.norm2", x, 1e-6)))
        x = x + linear(state, f"{block}.mlp.fc2", wide)
    return norm(state, "visual_encoder.norm", x, 1e-6)


def plain_text(state: State, batch: TokenBatch) -> Tensor:
    """Embeddings and the layers that read the text alone."""
    words = "text_encoder.embeddings"
    x = state[f"{words}.word_embeddings.weight"][batch.ids]
    x = x + state[f"{words}.position_embeddings.weight"][: x.shape[1]]
    x = x + state[f"{words}.token_type_embeddings.weight"][0]
    x = norm(state, f"{words}.LayerNorm", x, 1e-12)
    for number in range(TEXT_LAYERS // 2):
        x = plain_layer(state, number, x, batch.mask)
    return x


def plain_layer(
    state: State, number: int, x: Tensor, mask: Tensor, image: Tensor | None = None
) -> Tensor:
    """A BERT layer: post-norm, with cross-attention where there is an image."""
    layer = f"text_encoder.encoder.layer.{number}"
    sources: list[tuple[str, Tensor | None]] = [("attention", None)]
    if image is not None:
        sources.append(("crossattention", image))
    for attention, seen in sources:
        place = f"{layer}.{attention}"
        other = x if seen is None else seen
        q = linear(state, f"{place}.self.query", x)
        k, v = (linear(state, f"{place}.self.{part}", other) for part in ("key", "value"))
        made = linear(
            state, f"{place}.output.dense", attend(q, k, v, mask if seen is None else None)
        )
        x = norm(state, f"{place}.output.LayerNorm", made + x, 1e-12)
    wide = gelu(linear(state, f"{layer}.intermediate.dense", x))
    return norm(
        state, f"{layer}.output.LayerNorm", linear(state, f"{layer}.output.dense", wide) + x, 1e-12
    )


PIXELS = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
IDS = torch.tensor([[1, 10, 11, 12, 2], [1, 13, 2, 0, 0]])
WORDS = TokenBatch(IDS, IDS != 0)


def test_the_image_encoder_says_what_a_plain_vit_says(
    state: State, tokenizer: TextTokenizer
) -> None:
    model = convert(state, tokenizer, heads=HEADS)
    made = model.encode_items(PIXELS).tokens
    torch.testing.assert_close(made, plain_vit(state, PIXELS), rtol=0, atol=1e-5)


def test_text_fusion_and_similarity_are_those_of_a_plain_forward_pass(
    state: State, tokenizer: TextTokenizer
) -> None:
    model = convert(state, tokenizer, heads=HEADS)
    item, text = model.encode_items(PIXELS), model.encode_texts(WORDS)
    image, words = plain_vit(state, PIXELS), plain_text(state, WORDS)
    shown = WORDS.mask[..., None]
    torch.testing.assert_close(text.tokens * shown, words * shown, rtol=0, atol=1e-5)
    fused = words
    for number in range(TEXT_LAYERS // 2, TEXT_LAYERS):
        fused = plain_layer(state, number, fused, WORDS.mask, image)
    found = model.fuse(item, text)
    torch.testing.assert_close(found.readout, fused[:, 0], rtol=0, atol=1e-5)
    match = linear(state, "itm_head", fused[:, 0])
    torch.testing.assert_close(found.logits, match, rtol=0, atol=1e-5)
    units = [
        F.normalize(linear(state, name, vector), dim=-1)
        for name, vector in (("vision_proj", image[:, 0]), ("text_proj", words[:, 0]))
    ]
    for mine, plain in zip(model.project(item, text), units, strict=True):
        torch.testing.assert_close(mine, plain, rtol=0, atol=1e-5)
    assert model.temperature.item() == pytest.approx(0.05)


def test_sizes_are_read_off_the_weights(state: State, tokenizer: TextTokenizer) -> None:
    config = convert(state, tokenizer, heads=HEADS, dropout=0.0).config
    assert config == AlbefConfig(
        image_size=(SIDE, SIDE),
        patch_size=(PATCH, PATCH),
        hidden_size=D,
        heads=HEADS,
        vision_layers=VISION_LAYERS,
        text_layers=TEXT_LAYERS,
        feed_forward=FFN // D,
        projection_size=P,
        vocabulary=tokenizer.vocabulary,
        max_text_tokens=POSITIONS,
        classes=2,
        images=1,
        vision_norm_eps=1e-6,
    )


def test_a_state_dict_of_pretraining_names_its_bert_once_more(
    state: State, tokenizer: TextTokenizer
) -> None:
    longer = {name.replace("text_encoder.e", "text_encoder.bert.e"): w for name, w in state.items()}
    one, other = (convert(s, tokenizer, heads=HEADS).state_dict() for s in (state, longer))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "name",
    [
        "cls_head.0.weight",
        "visual_encoder.blocks.0.attn.relative_bias",
        "text_encoder.encoder.layer.0.adapter.weight",
        "visual_encoder.pre_norm.weight",
    ],
)
def test_a_weight_that_is_not_known_is_named(
    state: State, tokenizer: TextTokenizer, name: str
) -> None:
    with pytest.raises(CheckpointError, match=f"1 weights are not known.*{name}"):
        convert({**state, name: torch.zeros(1)}, tokenizer, heads=HEADS)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("visual_encoder.blocks.1.attn.qkv.bias", r"vision\.layers\.1\.attention\.k_proj\.bias"),
        ("text_encoder.encoder.layer.3.crossattention.self.key.bias", r"fusion_layers\.1\.cross"),
        ("itm_head.weight", r"itm_head\.weight"),
        ("temp", "raw_temperature"),
    ],
)
def test_a_weight_that_is_missing_is_named(
    state: State, tokenizer: TextTokenizer, name: str, shown: str
) -> None:
    del state[name]
    with pytest.raises(CheckpointError, match=f"weights are missing.*{shown}"):
        convert(state, tokenizer, heads=HEADS)


def test_weights_of_other_sizes_are_refused(state: State, tokenizer: TextTokenizer) -> None:
    narrow = {**state, "text_encoder.encoder.layer.1.output.dense.weight": torch.zeros(D, 3)}
    with pytest.raises(CheckpointError, match="do not fit each other"):
        convert(narrow, tokenizer, heads=HEADS)
    odd = {n: w for n, w in state.items() if "layer.2.cross" not in n}
    with pytest.raises(CheckpointError, match="here 1 of 4 fuse"):
        convert(odd, tokenizer, heads=HEADS)


def command(state: State, tokenizer: TextTokenizer, place: Path) -> Path:
    """Run the command on a file in the authors' form, and return the checkpoint."""
    torch.save({"model": state, "epoch": 3, "config": {"lr": 1e-5}}, place / "albef.pth")
    (place / "bert").mkdir()
    tokenizer.save(place / "bert", POSITIONS)
    arguments = [place / "albef.pth", place / "out", "--tokenizer", place / "bert"]
    assert main([*map(str, arguments), "--heads", str(HEADS)]) == 0
    return place / "out"


@pytest.fixture
def folder(state: State, tokenizer: TextTokenizer, tmp_path: Path) -> Path:
    return command(state, tokenizer, tmp_path)


def test_the_command_writes_a_checkpoint(
    state: State, tokenizer: TextTokenizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = load_checkpoint(command(state, tokenizer, tmp_path))
    assert isinstance(loaded.model, Albef)
    assert loaded.card["task"] == "retrieval"
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"checkpoint_sha256": loaded.digest.checkpoint_sha256}
    assert torch.equal(loaded.model.head.weight, state["itm_head.weight"])


def test_a_training_starts_from_a_converted_checkpoint(
    folder: Path, state: State, image_data: PairDataset
) -> None:
    built = Albef.build(AlbefConfig(pretrained=str(folder), dropout=0.2), image_data, 0)
    assert built.config.hidden_size == D
    assert built.config.dropout == 0.2
    source = load_checkpoint(folder).model.state_dict()
    assert all(torch.equal(source[name], w) for name, w in built.state_dict().items())


def test_both_blocks_for_two_images_start_from_the_one_for_one(
    folder: Path, state: State, image_pairs: PairDataset
) -> None:
    built = Albef.build(AlbefConfig(pretrained=str(folder)), image_pairs, 0)
    assert len(built.fusion_layers) == 4
    for number, block in enumerate(built.fusion_layers):
        layer = f"text_encoder.encoder.layer.{2 + number // 2}"
        query = block.get_submodule("crossattention.self.query").weight
        assert torch.equal(query, state[f"{layer}.crossattention.self.query.weight"])
        assert torch.equal(
            block.get_submodule("output.dense").weight, state[f"{layer}.output.dense.weight"]
        )
    # The head is for another question than "match".
    assert not torch.equal(built.head.weight, state["itm_head.weight"])
    found = torch.tensor(0.05)
    assert torch.equal(built.raw_temperature.data, found)


def test_a_model_for_two_images_is_no_start_for_one(
    folder: Path, image_pairs: PairDataset, image_data: PairDataset, tmp_path: Path
) -> None:
    two = Albef.build(AlbefConfig(pretrained=str(folder)), image_pairs, 0)
    (tmp_path / "two").mkdir()
    two.save(tmp_path / "two")
    again = Albef.build(AlbefConfig(pretrained=str(tmp_path / "two")), image_pairs, 0)
    state = two.state_dict()
    moved = [n for n, w in again.state_dict().items() if not torch.equal(w, state[n])]
    assert set(moved) == {"head.weight"}
    with pytest.raises(InvalidSpec, match="pairs of 2 images"):
        Albef.build(AlbefConfig(pretrained=str(tmp_path / "two")), image_data, 0)


def test_a_whole_albef_and_parts_of_one_cannot_both_be_named() -> None:
    with pytest.raises(ValueError, match="pretrained is a whole ALBEF"):
        AlbefConfig(pretrained="here", pretrained_text="minilm")


class Attack:
    """Runs when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def damaged(kind: str, path: Path) -> None:
    contents: dict[str, Callable[[], object]] = {
        "pickle": lambda: torch.save({"model": Attack(path.with_name("run"))}, path),
        "text": lambda: path.write_text("no weights"),
        "empty": lambda: path.write_bytes(b""),
        "list": lambda: torch.save([torch.zeros(1)], path),
        "numbers": lambda: torch.save({"model": {"a": 3}}, path),
        "missing": lambda: None,
    }
    contents[kind]()


@pytest.mark.parametrize("kind", ["pickle", "text", "empty", "list", "numbers", "missing"])
def test_a_file_that_holds_no_plain_weights_is_refused_without_being_run(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "albef.pth"
    damaged(kind, path)
    with pytest.raises(CheckpointError, match=r"albef\.pth (is no file|holds no weights)"):
        read_state(path)
    assert not (tmp_path / "run").exists()


def test_the_command_says_what_is_wrong_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bert").mkdir()
    given = [tmp_path / "no.pth", tmp_path / "out", "--tokenizer", tmp_path / "bert"]
    assert main([str(part) for part in given]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("tokenizer.json cannot be read")
    assert not (tmp_path / "out").exists()
