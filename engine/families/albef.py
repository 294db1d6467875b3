"""ALBEF (Li et al. 2021): a ViT, a text transformer, and fusion layers over both.

The n BERT layers are cut in half: layers 0..n/2-1 read the text alone (f_L), layers n/2..n-1 read
the text and attend to the image tokens (f_M). Two projections of the unimodal [CLS] vectors give
the contrastive similarity (ITC), and a head on the fused [CLS] says "match" (ITM) or gives a
class.

Pairs of two images (NLVR): each fusion layer becomes two blocks of self-attention, cross-attention
and FFN that follow one another, the first sees image 1 and the second image 2; the two share the
keys and values of cross-attention (their section on NLVR2).

What differs from the paper: no momentum model and no masked-language head, which unlearning does
not use; the head on the fused [CLS] is linear for classes, too; two blocks that start from nothing
are drawn apart, those of a pretrained text model start alike; no text-assignment pretraining.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BertConfig, ViTModel
from transformers.models.bert.modeling_bert import BertEmbeddings, BertLayer

from engine.data.pairs import PairDataset
from engine.errors import InvalidSpec
from engine.families import pretrained, starting, weights
from engine.families.albef_layers import (
    AlbefConfig,
    bert_config,
    fusion_block,
    share_projections,
    vit_config,
)
from engine.families.base import (
    DataFact,
    Encoding,
    FamilyConfig,
    Fused,
    PairModel,
    Part,
    families,
)
from engine.families.images import ImageTable, normalise
from engine.tokenizers import TextTokenizer, TokenBatch, TokenTable


@families.register("albef")
class Albef(PairModel):
    """ALBEF: images (one or two) with texts, ranked or given a class by a transformer over both.

    As a `PairModel`, item is the ViT, text the embeddings and text layers.
    """

    family: ClassVar[str] = "albef"
    modality = "image"
    config_class = AlbefConfig
    contrastive = True
    item_counts = (1, 2)
    set_by_data: ClassVar[Mapping[str, DataFact]] = {
        "classes": "classes",
        "images": "items_per_pair",
    }
    config: AlbefConfig

    def __init__(self, config: AlbefConfig, tokenizer: TextTokenizer) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        bert = bert_config(config, tokenizer.pad_id)
        half, d = config.text_layers // 2, config.hidden_size
        self.vision = ViTModel(vit_config(config), add_pooling_layer=False)
        self.embeddings = BertEmbeddings(bert)
        self.text_layers = nn.ModuleList(BertLayer(bert, layer_idx=i) for i in range(half))
        fusing = bert_config(config, tokenizer.pad_id, fusion=True)
        self.fusion_layers = nn.ModuleList(
            fusion_block(fusing, i)
            for i in range(half, config.text_layers)
            for _ in range(self.items_per_pair)
        )
        if self.items_per_pair == 2:
            share_projections(self.fusion_layers)
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
        given = starting.expect(config, AlbefConfig, cls.family)
        config = given.model_copy(
            update={
                "classes": starting.classes_for(given.classes, dataset),
                "images": starting.images_for(given.images, dataset),
            }
        )
        with weights.seeded(seed):
            if config.pretrained is not None:
                folder = pretrained.resolve(config.pretrained)
                with pretrained.readable(folder):
                    source = cls.load(folder)
                return cls._from_albef(config, source, matching=dataset.classes is None)
            if config.pretrained_text is None:
                texts = starting.training_texts(dataset)
                model = cls(*starting.own_tokenizer(config, texts))
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
        _refuse_other_sizes(bert_config(sized, model.tokenizer.pad_id), bert.config)
        with torch.no_grad():
            positions = bert.embeddings.position_embeddings
            positions.weight = nn.Parameter(positions.weight[: config.max_text_tokens].clone())
        model.embeddings.load_state_dict(bert.embeddings.state_dict())
        half = len(model.text_layers)
        _fill(model.text_layers, bert.encoder.layer[:half])
        _fill(model.fusion_layers, bert.encoder.layer[half:])
        return model

    @classmethod
    def _from_albef(cls, config: AlbefConfig, source: Self, *, matching: bool) -> Self:
        """Start from another ALBEF; the head of another task than matching is drawn anew."""
        if source.items_per_pair > (config.images or 1):
            raise InvalidSpec(
                "the pretrained ALBEF has fusion blocks for pairs of 2 images, and the data set's "
                "pairs have 1"
            )
        own = {"classes", "images", "dropout", "pretrained"}
        model = cls(
            source.config.model_copy(update=config.model_dump(include=own)), source.tokenizer
        )
        _fill(model.fusion_layers, source.fusion_layers)
        kept = ("vision", "embeddings", "text_layers", "item_projection", "text_projection")
        for name in (*kept, "head") if matching and config.classes == 2 else kept:
            model.get_submodule(name).load_state_dict(source.get_submodule(name).state_dict())
        with torch.no_grad():
            model.raw_temperature.copy_(source.raw_temperature)
        return model

    @property
    def items_per_pair(self) -> int:
        """Images of a pair."""
        return self.config.images or 1

    def prepare_items(self, items: Sequence[Any]) -> ImageTable:
        """Return images of ``image_size``; see `ImageTable`."""
        return ImageTable(items, self.config.image_size)

    def prepare_texts(self, texts: Sequence[str]) -> TokenTable:
        """Tokenise texts, at most ``max_text_tokens`` each."""
        return self.tokenizer.encode(texts, self.config.max_text_tokens)

    def take(self, prepared: Any, rows: Tensor) -> Any:
        """Return pixels ``(B, 3, H, W)``, normalised, or a `TokenBatch`."""
        if isinstance(prepared, TokenTable):
            return prepared.take(rows, self.device)
        pixels = prepared.take(rows).to(self.device)
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

        Of a pair with two images each block sees one, in turns. Every token of a ViT counts, so
        that cross-attention needs no mask.
        """
        tokens, mask = text.tokens, text.mask[:, None, None, :]
        images = item.tokens.chunk(self.items_per_pair, dim=1)
        for number, block in enumerate(self.fusion_layers):
            tokens = block(tokens, mask, images[number % len(images)])
        readout = tokens[:, 0]
        return Fused(readout, self.head(readout))

    def project_items(self, item: Encoding) -> Tensor:
        """Return the ITC vectors of images ``(B, p)``, of length 1."""
        self.refuse_image_pairs()
        return functional.normalize(self.item_projection(item.pooled), dim=-1)

    def project_texts(self, text: Encoding) -> Tensor:
        """Return the ITC vectors of texts ``(B, p)``, of length 1."""
        self.refuse_image_pairs()
        return functional.normalize(self.text_projection(text.pooled), dim=-1)

    @property
    def temperature(self) -> Tensor:
        """ITC temperature between 0.001 and 0.5, a scalar."""
        return self.raw_temperature.clamp(0.001, 0.5)

    @staticmethod
    def part_of(name: str) -> Part:
        """Return the part; the ITC projections and the temperature belong to fusion."""
        return _PART_OF.get(name.partition(".")[0], "fusion")

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
        tokenizer.check_fits(config.vocabulary)
        model = cls(config, tokenizer)
        weights.load_weights(model, directory)
        return model


def _fill(layers: nn.ModuleList, sources: nn.ModuleList) -> None:
    """Copy weights into as many layers, or into twice as many blocks, each source into two."""
    copies = len(layers) // len(sources)
    for number, layer in enumerate(layers):
        layer.load_state_dict(sources[number // copies].state_dict(), strict=False)


_PART_OF: dict[str, Part] = {
    "vision": "item",
    "embeddings": "text",
    "text_layers": "text",
    "head": "head",
}
"""Part by first word of the parameter's name; everything else is fusion."""


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
