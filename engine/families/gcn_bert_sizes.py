"""Sizes of GCN + BERT, and what the data set and the machine decide of them."""

from typing import Any

from pydantic import ConfigDict, Field, model_validator
from transformers import BertConfig

from engine.data.pairs import PairDataset
from engine.errors import InvalidSpec
from engine.families import pretrained, starting
from engine.families.base import INSTALLED, MOST_CLASSES, MULTIPLE_OF, FamilyConfig
from engine.families.pretrained import MINILM


class GcnBertConfig(FamilyConfig):
    """Sizes of GCN + BERT."""

    model_config = ConfigDict(
        json_schema_extra={
            MULTIPLE_OF: [["text_width", "heads"]],
            "if": {"properties": {"pretrained": {"type": "null"}}, "required": ["pretrained"]},
            "then": {"properties": {"trainable_text_layers": {"const": 0}}},
        }
    )

    pretrained: str | None = Field(
        default="auto",
        description="frozen BERT: folder, hub name, 'minilm', None (an own one is trained), or "
        "'auto': minilm where it is installed",
        json_schema_extra={INSTALLED: ["auto", MINILM]},
    )
    pretrained_sha256: str | None = Field(default=None, description="of that encoder; filled in")
    trainable_text_layers: int = Field(
        default=0, ge=0, le=96, description="last layers of it that are trained"
    )
    hidden_size: int = Field(
        default=128, ge=8, le=4096, description="d, of graph, text and fused vectors"
    )
    graph_layers: int = Field(default=2, ge=1, le=6)
    text_width: int = Field(
        default=64, ge=8, le=4096, description="of an own BERT and own node vectors"
    )
    text_layers: int = Field(default=2, ge=1, le=96, description="of an own BERT")
    heads: int = Field(default=4, ge=1, le=128, description="of an own BERT")
    vocabulary: int = Field(
        default=4000, ge=260, le=1_000_000, description="largest size of an own tokenizer"
    )
    max_text_tokens: int = Field(default=128, ge=4, le=512)
    max_node_tokens: int = Field(default=24, ge=4, le=512)
    dropout: float = Field(default=0.4, ge=0, lt=1)
    classes: int | None = Field(
        default=None, ge=2, le=MOST_CLASSES, description="None: those of the data set"
    )

    @model_validator(mode="after")
    def _encoder_can_be_trained(self) -> "GcnBertConfig":
        if self.pretrained is None and self.trainable_text_layers:
            raise ValueError(
                "trainable_text_layers needs a pretrained encoder; an own one is trained whole"
            )
        return self


def resolved(config: GcnBertConfig, dataset: PairDataset) -> GcnBertConfig:
    """Fill in what depends on the data set and on what is installed."""
    update: dict[str, Any] = {"classes": starting.classes_for(config.classes, dataset)}
    if config.pretrained == "auto":
        update["pretrained"] = pretrained.MINILM if pretrained.minilm_installed() else None
        if update["pretrained"] is None and config.trainable_text_layers:
            raise InvalidSpec(
                "trainable_text_layers needs a pretrained encoder, and MiniLM is not installed"
            )
    return config.model_copy(update=update)


def own_bert(config: GcnBertConfig) -> BertConfig:
    """Return the configuration of a text encoder that starts from nothing."""
    sizes = BertConfig(
        vocab_size=config.vocabulary,
        pad_token_id=0,
        hidden_size=config.text_width,
        num_hidden_layers=config.text_layers,
        num_attention_heads=config.heads,
        intermediate_size=4 * config.text_width,
        max_position_embeddings=config.max_text_tokens,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
    )
    return pretrained.with_sdpa(sizes)
