"""CLIP (Radford et al. 2021) on the parts of transformers.

f_V is a ViT, f_L a causal transformer that is read at the end of the text. f_M is no network but a
dot product: each tower has a projection, and the cosine of the two projected vectors is all that the
model says of a pair. So the fusion module (-F) is the two projections and the logit scale.

The readout is p times the product, dimension by dimension, of the two unit vectors ``(B, p)``. Its
mean is the cosine, so that a readout that goes to that of an unrelated pair takes the cosine with
it. Both vectors side by side would do neither: each of them stays the same when the other changes.
The factor p brings its entries to the size of those of a normalised [CLS].

There is no head, neither for "match" nor for classes: retrieval ranks and scores by the cosine, and
tasks with labels are refused. A head on the readout would be another model than CLIP, which no
published CLIP and nothing that loads one knows.

Checkpoints have the names and layout of `transformers.CLIPModel`: each loads the other's.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPConfig as Layout
from transformers import (
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from engine.data.pairs import PairDataset
from engine.errors import InvalidSpec
from engine.families import layout, pretrained, starting, weights
from engine.families.base import Encoding, FamilyConfig, Fused, PairModel, Part, families
from engine.families.images import CLIP_MEAN, CLIP_STD, ImageTable, normalise
from engine.families.towers import TowersConfig, text_sizes, towers_fields, vision_sizes
from engine.tokenizers import SpecialTokens, TextTokenizer, TokenBatch, TokenTable

START, END = "<|startoftext|>", "<|endoftext|>"
# The text is read at its first END, so that more of them behind it are as good as padding. END must
# not get the id 2, which transformers takes for a sign of an old, wrong configuration.
SPECIAL = SpecialTokens(END, START, END, kinds=("bos", "eos"))
LARGEST_SCALE = math.log(100)
"""Of the logit scale, as CLIP was trained."""
OURS = {"max_text_tokens", "pretrained", "temperature"}
"""Fields of the configuration for which transformers has none; see `_fields` for the others."""


class ClipConfig(TowersConfig):
    """Sizes of CLIP; see `TowersConfig`."""


@families.register("clip")
class Clip(PairModel):
    """CLIP: images with texts, ranked by the cosine of their two vectors alone; gives no classes.

    As a `PairModel`, item and text are the towers, fusion the projections and the scale.
    """

    family: ClassVar[str] = "clip"
    modality = "image"
    config_class = ClipConfig
    contrastive = True
    matching = False
    classifies = False
    config: ClipConfig

    def __init__(self, config: ClipConfig, sizes: Layout, tokenizer: TextTokenizer) -> None:
        super().__init__()
        self.config = config
        self.sizes = sizes
        self.tokenizer = tokenizer
        vision, text = _towers(sizes)
        self.vision_model = CLIPVisionModel(vision)
        self.text_model = CLIPTextModel(text)
        p = config.projection_size
        self.visual_projection = nn.Linear(vision.hidden_size, p, bias=False)
        self.text_projection = nn.Linear(text.hidden_size, p, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(-math.log(config.temperature)))
        for projection in (self.visual_projection, self.text_projection):
            nn.init.normal_(projection.weight, std=projection.in_features**-0.5)
        self.eval()

    @classmethod
    def tiny(cls) -> ClipConfig:
        """Return a configuration of some 50,000 parameters."""
        return ClipConfig(
            image_size=16,
            patch_size=8,
            vision_size=48,
            vision_layers=1,
            vision_heads=2,
            vision_feed_forward=64,
            text_size=32,
            text_layers=2,
            text_heads=2,
            text_feed_forward=64,
            projection_size=16,
            vocabulary=300,
            max_text_tokens=24,
        )

    @classmethod
    def build(cls, config: FamilyConfig, dataset: PairDataset, seed: int) -> Self:
        """Make a model; see `PairModel.build`."""
        given = starting.expect(config, ClipConfig, cls.family)
        with weights.seeded(seed):
            if given.pretrained is not None:
                return cls._from_pretrained(given, pretrained.resolve(given.pretrained))
            texts = starting.training_texts(dataset)
            sized, tokenizer = starting.own_tokenizer(given, texts, SPECIAL)
            return cls(sized, _own_sizes(sized, tokenizer), tokenizer)

    @classmethod
    def _from_pretrained(cls, config: ClipConfig, folder: Path) -> Self:
        sizes = pretrained.read_config(Layout, folder)
        for tower in _towers(sizes):
            tower.attention_dropout = config.dropout
        source = pretrained.load(CLIPModel, folder, sizes)
        config = layout.described(ClipConfig, {**config.model_dump(), **_fields(sizes, config)})
        model = cls(config, sizes, TextTokenizer.load(folder, SPECIAL))
        model.load_state_dict(source.state_dict())
        return model

    def prepare_items(self, items: Sequence[Any]) -> ImageTable:
        """Cut the largest square out of the middle, ``image_size`` large; see `ImageTable`."""
        return ImageTable(items, (self.config.image_size, self.config.image_size), crop=True)

    def prepare_texts(self, texts: Sequence[str]) -> TokenTable:
        """Tokenise texts, at most ``max_text_tokens`` each."""
        return self.tokenizer.encode(texts, self.config.max_text_tokens)

    def take(self, prepared: Any, rows: Tensor) -> Any:
        """Return pixels ``(B, 3, H, W)``, normalised, or a `TokenBatch`."""
        if isinstance(prepared, TokenTable):
            return prepared.take(rows, self.device)
        return normalise(prepared.take(rows).to(self.device), CLIP_MEAN, CLIP_STD)

    def encode_items(self, inputs: Any) -> Encoding:
        """ViT: pixels ``(B, 3, H, W)`` to patches + 1 tokens; pooled is the [CLS] token."""
        made = self.vision_model(pixel_values=inputs)
        tokens = made.last_hidden_state
        mask = tokens.new_ones(tokens.shape[:2], dtype=torch.bool)
        return Encoding(tokens, mask, made.pooler_output)

    def encode_texts(self, inputs: Any) -> Encoding:
        """Text tower: `TokenBatch` to ``T_l`` tokens; pooled is the one at the end of the text."""
        batch: TokenBatch = inputs
        made = self.text_model(input_ids=batch.ids, attention_mask=batch.mask.long())
        return Encoding(made.last_hidden_state, batch.mask, made.pooler_output)

    def fuse(self, item: Encoding, text: Encoding) -> Fused:
        """Multiply unit vectors: readout ``(B, p)``, logits 0 and cosine / temperature ``(B, 2)``.

        The logits are as of a head that says "match", but nothing is trained to say it.
        """
        items, texts = self.project(item, text)
        product = items * texts
        match = product.sum(dim=-1) / self.temperature
        logits = torch.stack([torch.zeros_like(match), match], dim=-1)
        return Fused(product * product.shape[-1], logits)

    def project_items(self, item: Encoding) -> Tensor:
        """Return the ITC vectors of images ``(B, p)``, of length 1."""
        return functional.normalize(self.visual_projection(item.pooled), dim=-1)

    def project_texts(self, text: Encoding) -> Tensor:
        """Return the ITC vectors of texts ``(B, p)``, of length 1."""
        return functional.normalize(self.text_projection(text.pooled), dim=-1)

    @property
    def temperature(self) -> Tensor:
        """ITC temperature, a scalar of at least 0.01."""
        return (-self.logit_scale.clamp(max=LARGEST_SCALE)).exp()

    @staticmethod
    def part_of(name: str) -> Part:
        """Return the part; there is no head."""
        return _PART_OF.get(name.partition(".")[0], "fusion")

    def save(self, directory: Path) -> None:
        """Write weights, configuration, tokenizer and image processor as transformers does."""
        ours = self.config.model_dump(mode="json", include=OURS)
        layout.save_layout(self.sizes, CLIPModel.__name__, ours, directory)
        weights.save_weights(self, directory)
        self.tokenizer.save(directory, self.config.max_text_tokens)
        side = self.config.image_size
        processor = CLIPImageProcessorPil(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        )
        layout.save_processor(processor, directory)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` or a CLIPModel wrote; raises `CheckpointError`."""
        sizes, ours = layout.load_layout(Layout, directory)
        given = layout.described(ClipConfig, ours)
        config = layout.described(ClipConfig, {**given.model_dump(), **_fields(sizes, given)})
        tokenizer = TextTokenizer.load(directory, SPECIAL)
        tokenizer.check_fits(config.vocabulary)
        model = cls(config, sizes, tokenizer)
        weights.load_weights(model, directory)
        return model


_PART_OF: dict[str, Part] = {"vision_model": "item", "text_model": "text"}
"""Part by first word of the parameter's name; everything else is fusion."""


def _towers(sizes: Layout) -> tuple[CLIPVisionConfig, CLIPTextConfig]:
    vision, text = sizes.vision_config, sizes.text_config
    if not isinstance(vision, CLIPVisionConfig) or not isinstance(text, CLIPTextConfig):
        raise InvalidSpec("a CLIP configuration must have vision_config and text_config")
    return vision, text


def _fields(sizes: Layout, config: ClipConfig) -> dict[str, Any]:
    """Return the fields of a configuration that say what ``sizes`` says."""
    vision, text = _towers(sizes)
    return {
        **towers_fields(vision, text),
        "projection_size": sizes.projection_dim,
        "dropout": text.attention_dropout,
        "max_text_tokens": min(config.max_text_tokens, text.max_position_embeddings),
    }


def _own_sizes(config: ClipConfig, tokenizer: TextTokenizer) -> Layout:
    """Return the configuration of transformers for a model that starts from nothing."""
    ends = {"bos_token_id": tokenizer.id_of(START), "eos_token_id": tokenizer.id_of(END)}
    return Layout(
        text_config={
            **text_sizes(config),
            **ends,
            "pad_token_id": tokenizer.pad_id,
            "attention_dropout": config.dropout,
            "projection_dim": config.projection_size,
        },
        vision_config={**vision_sizes(config), "projection_dim": config.projection_size},
        projection_dim=config.projection_size,
        logit_scale_init_value=-math.log(config.temperature),
    )
