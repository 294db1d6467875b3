"""BLIP's sizes, in our words and in those of transformers."""

from typing import Any, Literal

from pydantic import Field
from transformers import BlipConfig as Layout
from transformers import BlipTextConfig, BlipVisionConfig

from engine.errors import InvalidSpec
from engine.families.base import MOST_CLASSES
from engine.families.towers import TowersConfig, text_sizes, towers_fields, vision_sizes
from engine.tokenizers import TextTokenizer

OURS = {"classes", "images", "max_text_tokens", "pretrained", "temperature"}
"""Fields of the configuration for which transformers has none; see `fields_of` for the others."""


class BlipConfig(TowersConfig):
    """Sizes of BLIP; see `TowersConfig`."""

    classes: int | None = Field(
        default=None, ge=2, le=MOST_CLASSES, description="of the head; None: 2, match or not"
    )
    images: Literal[1, 2] | None = Field(
        default=None, description="of each pair; None: as many as the data set's pairs have"
    )


def towers(sizes: Layout) -> tuple[BlipVisionConfig, BlipTextConfig]:
    """Return the configurations of image and text encoder, the latter with cross-attention."""
    vision, text = sizes.vision_config, sizes.text_config
    if not isinstance(vision, BlipVisionConfig) or not isinstance(text, BlipTextConfig):
        raise InvalidSpec("a BLIP configuration must have vision_config and text_config")
    # It has cross-attention whatever the folder says; "decoder" is only the flag for it.
    text.is_decoder = True
    return vision, text


def set_dropout(sizes: Layout, dropout: float) -> None:
    """Let every dropout of a model be ``dropout``."""
    vision, text = towers(sizes)
    vision.attention_dropout = dropout
    text.hidden_dropout_prob = text.attention_probs_dropout_prob = dropout


def fields_of(sizes: Layout, config: BlipConfig) -> dict[str, Any]:
    """Return the fields of a configuration that say what ``sizes`` says."""
    vision, text = towers(sizes)
    return {
        **towers_fields(vision, text),
        "projection_size": sizes.image_text_hidden_size,
        "dropout": text.hidden_dropout_prob,
        "max_text_tokens": min(config.max_text_tokens, text.max_position_embeddings),
    }


def own_sizes(config: BlipConfig, tokenizer: TextTokenizer) -> Layout:
    """Return the configuration of transformers for a model that starts from nothing."""
    return Layout(
        text_config={
            **text_sizes(config),
            "hidden_dropout_prob": config.dropout,
            "attention_probs_dropout_prob": config.dropout,
            "pad_token_id": tokenizer.pad_id,
            "bos_token_id": tokenizer.id_of("[CLS]"),
            "eos_token_id": tokenizer.id_of("[SEP]"),
            "sep_token_id": tokenizer.id_of("[SEP]"),
        },
        # Its default of 1e-10 is for weights that are loaded: patches would start as nothing.
        vision_config={**vision_sizes(config), "initializer_range": 0.02},
        image_text_hidden_size=config.projection_size,
    )
