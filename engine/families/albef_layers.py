"""ALBEF's sizes, and its layers of the parts of transformers."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator
from torch import nn
from transformers import BertConfig, ViTConfig
from transformers.models.bert.modeling_bert import BertLayer

from engine.families import pretrained
from engine.families.base import INSTALLED, MOST_CLASSES, MULTIPLE_OF, FamilyConfig
from engine.families.images import CLIP_MEAN, CLIP_STD
from engine.families.pretrained import MINILM

Side = Annotated[int, Field(ge=1, le=1024)]
Mean = Annotated[float, Field(ge=0, le=1)]
Spread = Annotated[float, Field(ge=0.001, le=1)]


class AlbefConfig(FamilyConfig):
    """Sizes of ALBEF; the defaults train from nothing on a CPU, see also `published`."""

    model_config = ConfigDict(
        json_schema_extra={
            MULTIPLE_OF: [["image_size", "patch_size"], ["hidden_size", "heads"]],
            # As `_one_start` has it, for whoever has the schema alone.
            "if": {"properties": {"pretrained": {"type": "string"}}, "required": ["pretrained"]},
            "then": {
                "properties": {
                    "pretrained_text": {"type": "null"},
                    "pretrained_vision": {"type": "null"},
                }
            },
        }
    )

    image_size: tuple[Side, Side] = Field(
        default=(64, 64), description="height and width in pixels"
    )
    patch_size: tuple[Side, Side] = Field(default=(8, 8), description="height and width in pixels")
    image_mean: tuple[Mean, Mean, Mean] = CLIP_MEAN
    image_std: tuple[Spread, Spread, Spread] = CLIP_STD
    hidden_size: int = Field(default=128, ge=8, le=4096, description="d, of image and text tokens")
    heads: int = Field(default=4, ge=1, le=128)
    vision_layers: int = Field(default=4, ge=1, le=96)
    text_layers: int = Field(
        default=4, ge=2, le=96, multiple_of=2, description="n: half read the text, half fuse"
    )
    feed_forward: int = Field(default=4, ge=1, le=16, description="width of the FFN, in units of d")
    projection_size: int = Field(
        default=128, ge=2, le=4096, description="p, of the contrastive vectors"
    )
    temperature: float = Field(default=0.07, ge=0.001, le=0.5, description="initial; it is trained")
    dropout: float = Field(default=0.0, ge=0, lt=1)
    vocabulary: int = Field(
        default=2000, ge=260, le=1_000_000, description="largest size of an own tokenizer"
    )
    max_text_tokens: int = Field(default=64, ge=4, le=512)
    classes: int | None = Field(
        default=None, ge=2, le=MOST_CLASSES, description="of the head; None: 2, match or not"
    )
    images: Literal[1, 2] | None = Field(
        default=None, description="of each pair; None: as many as the data set's pairs have"
    )
    vision_norm_eps: float = Field(
        default=1e-12, gt=0, le=1e-3, description="of the image encoder's layer norms"
    )
    pretrained: str | None = Field(
        default=None,
        description="folder of an ALBEF in this layout to start from; its sizes count",
    )
    pretrained_text: str | None = Field(
        default=None,
        description="folder, hub name or 'minilm'",
        json_schema_extra={INSTALLED: [MINILM]},
    )
    pretrained_vision: str | None = Field(default=None, description="folder or hub name of a ViT")

    @model_validator(mode="after")
    def _one_start(self) -> "AlbefConfig":
        if self.pretrained is not None and (self.pretrained_text or self.pretrained_vision):
            raise ValueError("pretrained is a whole ALBEF: leave out the other two")
        return self

    @classmethod
    def published(cls) -> "AlbefConfig":
        """Return the sizes of the paper: ViT-B/16 at 384 pixels, BERT-base with 6 + 6 layers."""
        return cls(
            image_size=(384, 384),
            patch_size=(16, 16),
            hidden_size=768,
            heads=12,
            vision_layers=12,
            text_layers=12,
            projection_size=256,
            dropout=0.1,
            vocabulary=30522,
            vision_norm_eps=1e-6,
        )


def vit_config(config: AlbefConfig) -> ViTConfig:
    """Return the configuration of the image encoder."""
    sizes = ViTConfig(
        image_size=config.image_size,
        patch_size=config.patch_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.vision_layers,
        num_attention_heads=config.heads,
        intermediate_size=config.feed_forward * config.hidden_size,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
        layer_norm_eps=config.vision_norm_eps,
    )
    return pretrained.with_sdpa(sizes)


def bert_config(config: AlbefConfig, pad_id: int, *, fusion: bool = False) -> BertConfig:
    """Return the configuration of the text layers, or of the fusion layers with cross-attention."""
    sizes = BertConfig(
        vocab_size=config.vocabulary,
        pad_token_id=pad_id,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.text_layers,
        num_attention_heads=config.heads,
        intermediate_size=config.feed_forward * config.hidden_size,
        max_position_embeddings=config.max_text_tokens,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
        # BertLayer has cross-attention only as a "decoder", see fusion_block.
        is_decoder=fusion,
        add_cross_attention=fusion,
    )
    return pretrained.with_sdpa(sizes)


def fusion_block(sizes: BertConfig, index: int) -> BertLayer:
    """Return a layer with cross-attention in which every token sees the tokens after it, too."""
    layer = BertLayer(sizes, layer_idx=index)
    layer.attention.self.is_causal = False
    return layer


def share_projections(blocks: nn.ModuleList) -> None:
    """Give the second block of each fusion layer the first one's keys and values of images.

    The second refers to them without owning them: they stay one parameter in parts, optimizer and
    file.
    """
    for first, second in zip(blocks[::2], blocks[1::2], strict=True):
        source: nn.Module = first.get_submodule("crossattention.self")
        target: nn.Module = second.get_submodule("crossattention.self")
        for name in ("key", "value"):
            delattr(target, name)
            vars(target)[name] = getattr(source, name)
