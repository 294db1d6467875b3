"""ALBEF (Li et al. 2021): a ViT, a text transformer, and fusion layers over both.

The n BERT layers are cut in half: layers 0..n/2-1 read the text alone (f_L), layers n/2..n-1 read
the text and attend to the image tokens (f_M). Two projections of the unimodal [CLS] vectors give
the contrastive similarity (ITC), and a head on the fused [CLS] says "match" (ITM) or gives a
class.

What differs from the paper: no momentum model and no masked-language head, which unlearning does
not use.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, ViTConfig, ViTModel
from transformers.models.bert.modeling_bert import BertEmbeddings, BertLayer

from engine.data.pairs import PairDataset
from engine.errors import CheckpointError, InvalidSpec
from engine.families import pretrained, weights
from engine.families.base import Encoding, FamilyConfig, Fused, PairModel, Part, families
from engine.families.images import ImageTable, image_table, normalise
from engine.tokenizers import TextTokenizer, TokenBatch, TokenTable, train_tokenizer


class AlbefConfig(FamilyConfig):
    """Sizes of ALBEF; the defaults train from nothing on a CPU, see also `published`."""

    image_size: tuple[int, int] = Field(default=(64, 64), description="height and width in pixels")
    patch_size: tuple[int, int] = Field(default=(8, 8), description="height and width in pixels")
    image_mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    image_std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    hidden_size: int = Field(default=128, ge=8, le=4096, description="d, of image and text tokens")
    heads: int = Field(default=4, ge=1, le=128)
    vision_layers: int = Field(default=4, ge=1, le=96)
    text_layers: int = Field(default=4, ge=2, le=96, description="n: half read the text, half fuse")
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
        default=None, ge=2, description="of the head; None: 2, match or not"
    )
    pretrained_text: str | None = Field(default=None, description="folder, hub name or 'minilm'")
    pretrained_vision: str | None = Field(default=None, description="folder or hub name of a ViT")

    @model_validator(mode="after")
    def _sizes_fit(self) -> "AlbefConfig":
        for side, patch in zip(self.image_size, self.patch_size, strict=True):
            if patch < 1 or side < patch or side % patch:
                raise ValueError(
                    f"image_size {self.image_size} is no multiple of {self.patch_size}"
                )
        if self.hidden_size % self.heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} must be a multiple of heads {self.heads}"
            )
        if self.text_layers % 2:
            raise ValueError(f"text_layers {self.text_layers} must be even: one half fuses")
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
        )


@families.register("albef")
class Albef(PairModel):
    """ALBEF as a `PairModel`: item is the ViT, text the embeddings and text layers."""

    family: ClassVar[str] = "albef"
    modality = "image"
    config_class = AlbefConfig
    contrastive = True
    config: AlbefConfig

    def __init__(self, config: AlbefConfig, tokenizer: TextTokenizer) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        bert = _bert_config(config, tokenizer.pad_id)
        half, d = config.text_layers // 2, config.hidden_size
        self.vision = ViTModel(_vit_config(config), add_pooling_layer=False)
        self.embeddings = BertEmbeddings(bert)
        self.text_layers = nn.ModuleList(BertLayer(bert, layer_idx=i) for i in range(half))
        fusing = _bert_config(config, tokenizer.pad_id, fusion=True)
        self.fusion_layers = nn.ModuleList(
            _bidirectional(BertLayer(fusing, layer_idx=i)) for i in range(half, config.text_layers)
        )
        self.item_projection = nn.Linear(d, config.projection_size)
        self.text_projection = nn.Linear(d, config.projection_size)
        self.raw_temperature = nn.Parameter(torch.tensor(config.temperature))
        self.head = nn.Linear(d, config.classes or 2)
        weights.initialise(self)
        self.eval()

    @classmethod
    def tiny(cls) -> AlbefConfig:
        """Return a configuration of some 60,000 parameters."""
        return AlbefConfig(
            image_size=(16, 32),
            patch_size=(8, 8),
            hidden_size=32,
            heads=2,
            vision_layers=1,
            text_layers=2,
            feed_forward=2,
            projection_size=16,
            vocabulary=300,
            max_text_tokens=24,
        )

    @classmethod
    def build(cls, config: FamilyConfig, dataset: PairDataset, seed: int) -> Self:
        """Make a model with ``classes`` of the data set; see `PairModel.build`."""
        if not isinstance(config, AlbefConfig):
            raise InvalidSpec(f"albef needs an AlbefConfig, and got {type(config).__name__}")
        config = config.model_copy(update={"classes": _classes(config, dataset)})
        with weights.seeded(seed):
            if config.pretrained_text is None:
                texts = [pair.text for pair in dataset.split("train")]
                tokenizer = train_tokenizer(texts, config.vocabulary)
                sized = config.model_copy(update={"vocabulary": tokenizer.vocabulary})
                model = cls(sized, tokenizer)
            else:
                model = cls._from_text(config, pretrained.resolve(config.pretrained_text))
            if config.pretrained_vision is not None:
                _copy_vision(model.vision, pretrained.resolve(config.pretrained_vision))
        return model

    @classmethod
    def _from_text(cls, config: AlbefConfig, folder: Path) -> Self:
        """Start text and fusion layers from a BERT; cross-attention, which it lacks, is drawn."""
        bert = pretrained.load_bert(folder)
        sized = config.model_copy(update={"vocabulary": bert.config.vocab_size})
        model = cls(sized, TextTokenizer.load(folder))
        _refuse_other_sizes(_bert_config(sized, model.tokenizer.pad_id), bert.config)
        with torch.no_grad():
            positions = bert.embeddings.position_embeddings
            positions.weight = nn.Parameter(positions.weight[: config.max_text_tokens].clone())
        model.embeddings.load_state_dict(bert.embeddings.state_dict())
        mine = [*model.text_layers, *model.fusion_layers]
        for layer, source in zip(mine, bert.encoder.layer, strict=True):
            layer.load_state_dict(source.state_dict(), strict=False)
        return model

    def prepare_items(self, items: Sequence[Any]) -> ImageTable:
        """Resize images to ``image_size``, as bytes; see `ImageTable`."""
        return image_table(items, self.config.image_size)

    def prepare_texts(self, texts: Sequence[str]) -> TokenTable:
        """Tokenise texts, at most ``max_text_tokens`` each."""
        return self.tokenizer.encode(texts, self.config.max_text_tokens)

    def take(self, prepared: Any, rows: Tensor) -> Any:
        """Return pixels ``(B, 3, H, W)``, normalised, or a `TokenBatch`."""
        if isinstance(prepared, TokenTable):
            return prepared.take(rows, self.device)
        pixels = prepared.pixels[rows].to(self.device)
        return normalise(pixels, self.config.image_mean, self.config.image_std)

    def encode_items(self, inputs: Any) -> Encoding:
        """ViT: pixels ``(B, 3, H, W)`` to patches + 1 tokens; pooled is the [CLS] token."""
        tokens = self.vision(pixel_values=inputs).last_hidden_state
        return Encoding(tokens, tokens.new_ones(tokens.shape[:2], dtype=torch.bool), tokens[:, 0])

    def encode_texts(self, inputs: Any) -> Encoding:
        """Text layers: `TokenBatch` to ``T_l`` tokens; pooled is the [CLS] token."""
        batch: TokenBatch = inputs
        tokens = self.embeddings(input_ids=batch.ids)
        mask = batch.mask[:, None, None, :]
        for layer in self.text_layers:
            tokens = layer(tokens, mask)
        return Encoding(tokens, batch.mask, tokens[:, 0])

    def fuse(self, item: Encoding, text: Encoding) -> Fused:
        """Fusion layers: text tokens attend to one another in both directions, and to image tokens.

        Every token of a ViT counts, so that cross-attention needs no mask.
        """
        tokens, mask = text.tokens, text.mask[:, None, None, :]
        for layer in self.fusion_layers:
            tokens = layer(tokens, mask, item.tokens)
        readout = tokens[:, 0]
        return Fused(readout, self.head(readout))

    def project(self, item: Encoding, text: Encoding) -> tuple[Tensor, Tensor]:
        """Return the ITC vectors of items and texts ``(B, p)``, of length 1."""
        return (
            functional.normalize(self.item_projection(item.pooled), dim=-1),
            functional.normalize(self.text_projection(text.pooled), dim=-1),
        )

    @property
    def temperature(self) -> Tensor:
        """ITC temperature between 0.001 and 0.5, a scalar."""
        return self.raw_temperature.clamp(0.001, 0.5)

    def parts(self) -> dict[Part, list[tuple[str, nn.Parameter]]]:
        """Return every parameter by part; the ITC projections and temperature belong to fusion."""
        found: dict[Part, list[tuple[str, nn.Parameter]]] = {
            "item": [],
            "text": [],
            "fusion": [],
            "head": [],
        }
        for name, parameter in self.named_parameters():
            found[_PART_OF.get(name.split(".")[0], "fusion")].append((name, parameter))
        return found

    def save(self, directory: Path) -> None:
        """Write weights, configuration and tokenizer; loading needs no pretrained model."""
        weights.save_config(self.config, directory)
        weights.save_weights(self, directory)
        self.tokenizer.save(directory, self.config.max_text_tokens)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote; raises `CheckpointError`."""
        config = weights.load_config(AlbefConfig, directory)
        tokenizer = TextTokenizer.load(directory)
        if tokenizer.vocabulary > config.vocabulary:
            raise CheckpointError(
                f"the tokenizer has {tokenizer.vocabulary} tokens and the model {config.vocabulary}"
            )
        model = cls(config, tokenizer)
        weights.load_weights(model, directory)
        return model


_PART_OF: dict[str, Part] = {
    "vision": "item",
    "embeddings": "text",
    "text_layers": "text",
    "head": "head",
}
"""Part by first word of the parameter's name; everything else is fusion."""


def _classes(config: AlbefConfig, dataset: PairDataset) -> int:
    if config.classes is not None and dataset.classes not in (None, config.classes):
        raise InvalidSpec(
            f"config.classes is {config.classes}, and the data set has {dataset.classes}"
        )
    return config.classes or dataset.classes or 2


def _vit_config(config: AlbefConfig) -> ViTConfig:
    sizes = ViTConfig(
        image_size=config.image_size,
        patch_size=config.patch_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.vision_layers,
        num_attention_heads=config.heads,
        intermediate_size=config.feed_forward * config.hidden_size,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
    )
    return pretrained.with_sdpa(sizes)


def _bert_config(config: AlbefConfig, pad_id: int, *, fusion: bool = False) -> BertConfig:
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
        # BertLayer has cross-attention only as a "decoder", see _bidirectional.
        is_decoder=fusion,
        add_cross_attention=fusion,
    )
    return pretrained.with_sdpa(sizes)


def _bidirectional(layer: BertLayer) -> BertLayer:
    """Let every token of a decoder's layer see the tokens after it, too."""
    layer.attention.self.is_causal = False
    return layer


_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
_KINDS = ("type_vocab_size", "layer_norm_eps", "hidden_act")


def _refuse_other_sizes(wanted: BertConfig, found: BertConfig) -> None:
    for name in (*_SIZES, *_KINDS):
        if getattr(wanted, name) != getattr(found, name):
            raise InvalidSpec(
                f"{name} is {getattr(wanted, name)} in the configuration "
                f"and {getattr(found, name)} in the pretrained text model; make them equal"
            )


def _copy_vision(vision: ViTModel, folder: Path) -> None:
    try:
        vision.load_state_dict(pretrained.load_vit(folder).state_dict())
    except RuntimeError as error:
        raise InvalidSpec(
            f"the pretrained ViT has other sizes than the configuration: {error}"
        ) from error
