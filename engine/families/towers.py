"""Sizes of families with an image and a text tower of their own widths: BLIP and CLIP."""

from typing import Any

from pydantic import ConfigDict, Field

from engine.families.base import MULTIPLE_OF, FamilyConfig


class TowersConfig(FamilyConfig):
    """Sizes of an image and a text tower; the defaults train from nothing on a CPU.

    With ``pretrained`` its sizes take the place of those given.
    """

    model_config = ConfigDict(
        json_schema_extra={
            MULTIPLE_OF: [
                ["image_size", "patch_size"],
                ["vision_size", "vision_heads"],
                ["text_size", "text_heads"],
            ]
        }
    )

    image_size: int = Field(default=64, ge=1, le=1024, description="height and width in pixels")
    patch_size: int = Field(default=8, ge=1, le=1024, description="height and width in pixels")
    vision_size: int = Field(default=128, ge=8, le=4096, description="d_v, of image tokens")
    vision_layers: int = Field(default=4, ge=1, le=96)
    vision_heads: int = Field(default=4, ge=1, le=128)
    vision_feed_forward: int = Field(default=512, ge=8, le=65_536, description="width of the FFN")
    text_size: int = Field(default=128, ge=8, le=4096, description="d, of text and fused tokens")
    text_layers: int = Field(default=4, ge=1, le=96)
    text_heads: int = Field(default=4, ge=1, le=128)
    text_feed_forward: int = Field(default=512, ge=8, le=65_536, description="width of the FFN")
    projection_size: int = Field(
        default=128, ge=2, le=4096, description="p, of the contrastive vectors"
    )
    temperature: float = Field(default=0.07, ge=0.001, le=0.5, description="initial; it is trained")
    dropout: float = Field(default=0.0, ge=0, lt=1)
    vocabulary: int = Field(
        default=2000, ge=262, le=1_000_000, description="largest size of an own tokenizer"
    )
    max_text_tokens: int = Field(default=64, ge=4, le=512)
    pretrained: str | None = Field(
        default=None, description="folder or hub name of a published model to start from"
    )


def towers_fields(vision: Any, text: Any) -> dict[str, Any]:
    """Return the fields of a `TowersConfig` that two configurations of transformers say."""
    return {
        "image_size": vision.image_size,
        "patch_size": vision.patch_size,
        "vision_size": vision.hidden_size,
        "vision_layers": vision.num_hidden_layers,
        "vision_heads": vision.num_attention_heads,
        "vision_feed_forward": vision.intermediate_size,
        "text_size": text.hidden_size,
        "text_layers": text.num_hidden_layers,
        "text_heads": text.num_attention_heads,
        "text_feed_forward": text.intermediate_size,
        "vocabulary": text.vocab_size,
    }


def vision_sizes(config: TowersConfig) -> dict[str, Any]:
    """Return what transformers calls the sizes of the image tower."""
    return {
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "hidden_size": config.vision_size,
        "num_hidden_layers": config.vision_layers,
        "num_attention_heads": config.vision_heads,
        "intermediate_size": config.vision_feed_forward,
        "attention_dropout": config.dropout,
    }


def text_sizes(config: TowersConfig) -> dict[str, Any]:
    """Return what transformers calls the sizes of the text tower."""
    return {
        "vocab_size": config.vocabulary,
        "hidden_size": config.text_size,
        "num_hidden_layers": config.text_layers,
        "num_attention_heads": config.text_heads,
        "intermediate_size": config.text_feed_forward,
        "max_position_embeddings": config.max_text_tokens,
    }
