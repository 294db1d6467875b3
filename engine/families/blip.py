"""BLIP (Li et al. 2022) on the parts of transformers.

f_V is a ViT, f_L a BERT that reads the text alone: its [CLS] gives the contrastive similarity
(ITC). f_M is the same BERT run again from its embeddings, with [ENC] in the place of [CLS] and a
cross-attention to the image tokens in every layer; a head on the fused [ENC] says "match" (ITM) or
gives a class. So the fusion module (-F) is the cross-attentions, the head and the projections.

Pairs of two images (NLVR): each layer has one cross-attention for each image. Their outputs are
averaged in the first half of the layers, and joined by a linear layer in the second half (the
paper's section on NLVR2).

Checkpoints have the names and layout of `transformers.BlipForImageTextRetrieval`: each loads the
other's, where a pair has one image and the head two classes. With more of either, transformers has
no such model, and ``config.json`` names no class of it. What differs: the trained temperature stands
beside the weights of transformers, which ignores it; [ENC] is put in by this model, and has to be by
the caller of the other. What differs from the paper: no decoder, momentum model or bootstrapping,
which unlearning does not use; a linear head for classes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BlipConfig as Layout
from transformers import (
    BlipForImageTextRetrieval,
    BlipTextConfig,
    BlipTextModel,
    BlipVisionModel,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.blip.modeling_blip_text import BlipTextLayer, BlipTextSelfAttention

from engine.data.pairs import PairDataset
from engine.families import layout, pretrained, starting, weights
from engine.families.base import (
    DataFact,
    Encoding,
    FamilyConfig,
    Fused,
    PairModel,
    Part,
    families,
)
from engine.families.blip_sizes import (
    OURS,
    BlipConfig,
    fields_of,
    own_sizes,
    set_dropout,
    towers,
)
from engine.families.images import CLIP_MEAN, CLIP_STD, ImageTable, normalise
from engine.tokenizers import SpecialTokens, TextTokenizer, TokenBatch, TokenTable

SPECIAL = SpecialTokens("[PAD]", "[CLS]", "[SEP]", mask="[MASK]", others=("[ENC]",))
ARCHITECTURE = "BlipForImageTextRetrieval"


@families.register("blip")
class Blip(PairModel):
    """BLIP: images (one or two) with texts, ranked or given a class by a BERT that looks at the image.

    As a `PairModel`, item is the ViT, text the BERT, fusion its cross-attentions.
    """

    family: ClassVar[str] = "blip"
    modality = "image"
    config_class = BlipConfig
    contrastive = True
    item_counts = (1, 2)
    set_by_data: ClassVar[Mapping[str, DataFact]] = {
        "classes": "classes",
        "images": "items_per_pair",
    }
    config: BlipConfig

    def __init__(self, config: BlipConfig, sizes: Layout, tokenizer: TextTokenizer) -> None:
        super().__init__()
        self.config = config
        self.sizes = sizes
        self.tokenizer = tokenizer
        vision, text = towers(sizes)
        self.vision_model = BlipVisionModel(vision)
        self.text_encoder = BlipTextModel(text, add_pooling_layer=False)
        self.second_image = nn.ModuleList(
            _SecondImage(text, joined=number >= text.num_hidden_layers // 2)
            for number in range(text.num_hidden_layers if self.items_per_pair == 2 else 0)
        )
        self.vision_proj = nn.Linear(vision.hidden_size, sizes.image_text_hidden_size)
        self.text_proj = nn.Linear(text.hidden_size, sizes.image_text_hidden_size)
        self.raw_temperature = nn.Parameter(torch.tensor(config.temperature))
        # Named as in transformers, where it tells 2 classes, match or not.
        self.itm_head = nn.Linear(text.hidden_size, config.classes or 2)
        weights.initialise(self)
        self.eval()

    @classmethod
    def tiny(cls) -> BlipConfig:
        """Return a configuration of some 60,000 parameters."""
        return BlipConfig(
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
        """Make a model with ``classes`` and ``images`` of the data set; see `PairModel.build`."""
        given = starting.expect(config, BlipConfig, cls.family)
        config = given.model_copy(
            update={
                "classes": starting.classes_for(given.classes, dataset),
                "images": starting.images_for(given.images, dataset),
            }
        )
        with weights.seeded(seed):
            if config.pretrained is not None:
                return cls._from_pretrained(
                    config, pretrained.resolve(config.pretrained), matching=dataset.classes is None
                )
            texts = starting.training_texts(dataset)
            config, tokenizer = starting.own_tokenizer(config, texts, SPECIAL)
            return cls(config, own_sizes(config, tokenizer), tokenizer)

    @classmethod
    def _from_pretrained(cls, config: BlipConfig, folder: Path, *, matching: bool) -> Self:
        """Start from published weights; the head of another task than matching is drawn anew."""
        sizes = pretrained.read_config(Layout, folder)
        set_dropout(sizes, config.dropout)
        source = pretrained.load(BlipForImageTextRetrieval, folder, sizes)
        config = layout.described(BlipConfig, {**config.model_dump(), **fields_of(sizes, config)})
        model = cls(config, sizes, TextTokenizer.load(folder, SPECIAL))
        state = source.state_dict()
        if not matching or config.classes != 2:
            state = {name: w for name, w in state.items() if not name.startswith("itm_head.")}
        model.load_state_dict(state, strict=False)
        model._start_second_images()
        return model

    def _start_second_images(self) -> None:
        """Give the cross-attention to image 2 the weights of the one to image 1, as the paper."""
        for layer, second in zip(self._layers(), self.second_image, strict=False):
            start = {"attention": "crossattention.self", "dense": "crossattention.output.dense"}
            for mine, source in start.items():
                weights_of_first = layer.get_submodule(source).state_dict()
                second.get_submodule(mine).load_state_dict(weights_of_first)

    @property
    def items_per_pair(self) -> int:
        """Images of a pair."""
        return self.config.images or 1

    def prepare_items(self, items: Sequence[Any]) -> ImageTable:
        """Return images as squares of ``image_size``; see `ImageTable`."""
        return ImageTable(items, (self.config.image_size, self.config.image_size))

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
        tokens = self.vision_model(pixel_values=inputs).last_hidden_state
        return Encoding(tokens, tokens.new_ones(tokens.shape[:2], dtype=torch.bool), tokens[:, 0])

    def encode_texts(self, inputs: Any) -> Encoding:
        """BERT without images: pooled is its last [CLS], ``(B, d)``.

        The tokens are those that `fuse` starts from: the embeddings, with [ENC] at the start.
        """
        batch: TokenBatch = inputs
        alone = self.text_encoder(input_ids=batch.ids, attention_mask=batch.mask.long())
        ids = torch.cat([torch.full_like(batch.ids[:, :1], self.enc_id), batch.ids[:, 1:]], dim=1)
        tokens = self.text_encoder.embeddings(input_ids=ids)
        return Encoding(tokens, batch.mask, alone.last_hidden_state[:, 0])

    @property
    def enc_id(self) -> int:
        """Id of [ENC]: the tokenizer's, or the last one that weights but no tokenizer know.

        Published tokenizers leave it out. Where there is no such id, [CLS] stands in for it.
        """
        named = self.tokenizer.id_of("[ENC]")
        if named is not None:
            return named
        spare = self.config.vocabulary > self.tokenizer.vocabulary
        return self.config.vocabulary - 1 if spare else int(self.tokenizer.id_of("[CLS]") or 0)

    def fuse(self, item: Encoding, text: Encoding) -> Fused:
        """BERT with cross-attention; text tokens attend to one another in both directions.

        Every token of a ViT counts, so that cross-attention needs no mask.
        """
        states, images = text.tokens, item.tokens.chunk(self.items_per_pair, dim=1)
        hidden = torch.zeros_like(text.mask, dtype=states.dtype)
        mask = hidden.masked_fill(~text.mask, torch.finfo(states.dtype).min)[:, None, None, :]
        for number, layer in enumerate(self._layers()):
            states, _ = layer.attention(states, attention_mask=mask)
            if len(images) == 1:
                states, _ = layer.crossattention(states, encoder_hidden_states=images[0])
            else:
                states = self.second_image[number](layer, states, *images)
            states = layer.feed_forward_chunk(states)
        readout = states[:, 0]
        return Fused(readout, self.itm_head(readout))

    def _layers(self) -> Sequence[BlipTextLayer]:
        layers: list[BlipTextLayer] = list(self.text_encoder.encoder.layer)  # type: ignore[arg-type]
        return layers

    def project_items(self, item: Encoding) -> Tensor:
        """Return the ITC vectors of images ``(B, p)``, of length 1."""
        self.refuse_image_pairs()
        return functional.normalize(self.vision_proj(item.pooled), dim=-1)

    def project_texts(self, text: Encoding) -> Tensor:
        """Return the ITC vectors of texts ``(B, p)``, of length 1."""
        self.refuse_image_pairs()
        return functional.normalize(self.text_proj(text.pooled), dim=-1)

    @property
    def temperature(self) -> Tensor:
        """ITC temperature between 0.001 and 0.5, a scalar."""
        return self.raw_temperature.clamp(0.001, 0.5)

    @staticmethod
    def part_of(name: str) -> Part:
        """Return the part: of the text encoder, the cross-attentions belong to fusion."""
        first = name.partition(".")[0]
        if first == "text_encoder" and ".crossattention." not in name:
            return "text"
        return _PART_OF.get(first, "fusion")

    def save(self, directory: Path) -> None:
        """Write weights, configuration, tokenizer and image processor as transformers does."""
        ours = self.config.model_dump(mode="json", include=OURS)
        known = self.items_per_pair == 1 and self.itm_head.out_features == 2
        layout.save_layout(self.sizes, ARCHITECTURE if known else None, ours, directory)
        weights.save_weights(self, directory)
        self.tokenizer.save(directory, self.config.max_text_tokens)
        side = self.config.image_size
        size = {"height": side, "width": side}
        layout.save_processor(BlipImageProcessorPil(size=size), directory)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` or a BlipForImageTextRetrieval wrote; raises `CheckpointError`."""
        sizes, ours = layout.load_layout(Layout, directory)
        given = layout.described(BlipConfig, ours)
        config = layout.described(BlipConfig, {**given.model_dump(), **fields_of(sizes, given)})
        tokenizer = TextTokenizer.load(directory, SPECIAL)
        tokenizer.check_fits(config.vocabulary)
        model = cls(config, sizes, tokenizer)
        weights.load_weights(model, directory, may_lack=frozenset({"raw_temperature"}))
        return model


class _SecondImage(nn.Module):
    """Cross-attention of one layer to image 2, and how it is merged with that to image 1.

    Args:
        sizes: of the text model.
        joined: merge by a linear layer over both, instead of their mean.
    """

    def __init__(self, sizes: BlipTextConfig, *, joined: bool) -> None:
        super().__init__()
        d = sizes.hidden_size
        self.attention = BlipTextSelfAttention(sizes, is_cross_attention=True)
        self.dense = nn.Linear(d, d)
        self.merge = nn.Linear(2 * d, d) if joined else None

    def forward(
        self, layer: BlipTextLayer, states: Tensor, first: Tensor, second: Tensor
    ) -> Tensor:
        """Return the text tokens ``(B, T_l, d)`` after cross-attention to both images."""
        attention, output = layer.crossattention.self, layer.crossattention.output
        seen = output.dense(attention(states, encoder_hidden_states=first)[0])
        also = self.dense(self.attention(states, encoder_hidden_states=second)[0])
        both = (seen + also) / 2
        if self.merge is not None:
            both = self.merge(torch.cat([seen, also], dim=-1))
        merged: Tensor = output.LayerNorm(output.dropout(both) + states)
        return merged


_PART_OF: dict[str, Part] = {"vision_model": "item", "itm_head": "head"}
"""Part by first word of the parameter's name; but for the text encoder, everything else is fusion."""
