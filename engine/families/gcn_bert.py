"""GCN + BERT for (graph, text) pairs, as in the paper's graph-text experiment.

f_V is a graph convolutional network (Kipf and Welling 2017) over the pair's subgraph, read at the
two entities and as a mean; f_L is a BERT; f_M is an FFN on concat(graph, text); the classifier
reads concat(graph, text, fused), which is also the readout.

Three ways to read text, by ``pretrained`` and ``trainable_text_layers``: a frozen published
encoder, whose vectors are made once a run; the same encoder with its last layers trained; or an
own BERT from nothing. Nodes are read by the frozen encoder, or else as a trained mean of token
vectors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, global_mean_pool
from transformers import BertConfig, BertModel

from engine.data.pairs import PairDataset
from engine.errors import CheckpointError, InvalidSpec
from engine.families import pretrained, weights
from engine.families.base import Encoding, FamilyConfig, Fused, PairModel, Part, families
from engine.families.graphs import GraphBatch, GraphTable, graph_table
from engine.families.sentences import FrozenEncoder, bert_tokens, frozen_encoder, mean_of
from engine.spec import Update
from engine.tokenizers import TextTokenizer, TokenBatch, TokenTable, train_tokenizer


class GcnBertConfig(FamilyConfig):
    """Sizes of GCN + BERT."""

    pretrained: str | None = Field(
        default="auto",
        description="frozen BERT: folder, hub name, 'minilm', None (an own one is trained), or "
        "'auto': minilm where it is installed",
    )
    pretrained_sha256: str | None = Field(default=None, description="of that encoder; filled in")
    trainable_text_layers: int = Field(
        default=0, ge=0, description="last layers of it that are trained"
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
    classes: int | None = Field(default=None, ge=2, description="None: those of the data set")

    @model_validator(mode="after")
    def _sizes_fit(self) -> "GcnBertConfig":
        if self.text_width % self.heads:
            raise ValueError(
                f"text_width {self.text_width} must be a multiple of heads {self.heads}"
            )
        if self.pretrained is None and self.trainable_text_layers:
            raise ValueError(
                "trainable_text_layers needs a pretrained encoder; an own one is trained whole"
            )
        return self


@dataclass(frozen=True)
class VectorTable:
    """Vectors ``(N, F)`` of texts that a frozen encoder read once."""

    vectors: Tensor


@dataclass(frozen=True)
class GraphInputs:
    """Subgraphs of a data set with what their M distinct nodes are read from: vectors or tokens."""

    graphs: GraphTable
    nodes: VectorTable | TokenTable


@families.register("gcn_bert")
class GcnBert(PairModel):
    """GCN + BERT as a `PairModel`: item is the GCN, text the BERT, fusion the FFN."""

    family: ClassVar[str] = "gcn_bert"
    modality = "graph"
    config_class = GcnBertConfig
    config: GcnBertConfig

    def __init__(
        self, config: GcnBertConfig, tokenizer: TextTokenizer | None, folder: Path | None
    ) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self._folder = folder
        width = config.text_width if folder is None else pretrained.bert_config(folder).hidden_size
        d = config.hidden_size
        self.dropout = nn.Dropout(config.dropout)
        self.node_words = nn.Embedding(config.vocabulary, width) if folder is None else None
        sizes = [width] + [d] * config.graph_layers
        self.convolutions = nn.ModuleList(GCNConv(a, b) for a, b in pairwise(sizes))
        self.graph_projection = nn.Linear(3 * d, d)
        self.bert = self._text_encoder()
        self.text_projection = nn.Linear(width, d)
        self.ffn = nn.Sequential(
            nn.Linear(2 * d, 2 * d), nn.GELU(), self.dropout, nn.Linear(2 * d, d)
        )
        self.head = nn.Linear(3 * d, config.classes or 2)
        self.eval()

    def _text_encoder(self) -> BertModel | None:
        """Return the BERT whose weights belong to this model, or None for a frozen one."""
        if self._folder is None:
            own = BertModel(_own_bert(self.config), add_pooling_layer=False)
            weights.initialise(own)
            return own
        if self.config.trainable_text_layers:
            return BertModel(pretrained.bert_config(self._folder), add_pooling_layer=False)
        return None

    @classmethod
    def tiny(cls) -> GcnBertConfig:
        """Return a configuration of some 30,000 parameters that needs no pretrained encoder."""
        return GcnBertConfig(
            pretrained=None,
            hidden_size=16,
            text_width=16,
            text_layers=1,
            heads=2,
            vocabulary=300,
            max_text_tokens=32,
            max_node_tokens=16,
            dropout=0.0,
        )

    @classmethod
    def build(cls, config: FamilyConfig, dataset: PairDataset, seed: int) -> Self:
        """Make a model with ``classes`` of the data set; see `PairModel.build`."""
        if not isinstance(config, GcnBertConfig):
            raise InvalidSpec(f"gcn_bert needs a GcnBertConfig, and got {type(config).__name__}")
        chosen = _resolved(config, dataset)
        with weights.seeded(seed):
            if chosen.pretrained is None:
                return cls._from_nothing(chosen, dataset)
            folder = pretrained.resolve(chosen.pretrained)
            sha256 = pretrained.digest(folder)
            model = cls(chosen.model_copy(update={"pretrained_sha256": sha256}), None, folder)
            if model.bert is not None:
                model._start_from(folder)
        return model

    @classmethod
    def _from_nothing(cls, config: GcnBertConfig, dataset: PairDataset) -> Self:
        train = dataset.split("train")
        texts = [pair.text for pair in train]
        nodes: dict[str, None] = {}
        for pair in train:
            nodes.update(dict.fromkeys(dataset.items.load(pair.items[0]).texts))
        tokenizer = train_tokenizer([*texts, *nodes], config.vocabulary)
        return cls(config.model_copy(update={"vocabulary": tokenizer.vocabulary}), tokenizer, None)

    def _start_from(self, folder: Path) -> None:
        """Copy a published BERT whose last layers this model trains."""
        source = pretrained.load_bert(folder)
        available = source.config.num_hidden_layers
        if self.config.trainable_text_layers > available:
            raise InvalidSpec(
                f"trainable_text_layers is {self.config.trainable_text_layers}, "
                f"and the encoder has {available}"
            )
        self.bert = source

    def _frozen(self) -> FrozenEncoder:
        if self._folder is None:
            raise InvalidSpec("this model has no frozen encoder")
        return frozen_encoder(self._folder)

    def prepare_items(self, items: Sequence[Any]) -> GraphInputs:
        """Collect the subgraphs, and read every distinct node once."""
        graphs = graph_table(items)
        limit = self.config.max_node_tokens
        if self.tokenizer is not None:
            return GraphInputs(graphs, self.tokenizer.encode(graphs.texts, limit))
        vectors = self._frozen().embed_shared(graphs.texts, limit, self.device)
        return GraphInputs(graphs, VectorTable(vectors))

    def prepare_texts(self, texts: Sequence[str]) -> VectorTable | TokenTable:
        """Tokenise texts; with a frozen encoder, return their vectors."""
        limit = self.config.max_text_tokens
        if self.tokenizer is not None:
            return self.tokenizer.encode(texts, limit)
        if self.bert is not None:
            return self._frozen().tokenizer.encode(texts, limit)
        return VectorTable(self._frozen().embed(texts, limit, self.device))

    def take(self, prepared: Any, rows: Tensor) -> Any:
        """Return `GraphBatch` with node inputs, vectors ``(B, F)``, or a `TokenBatch`."""
        if isinstance(prepared, GraphInputs):
            batch = prepared.graphs.take(rows)
            return batch.to(self.device), self.take(prepared.nodes, batch.nodes)
        if isinstance(prepared, TokenTable):
            return prepared.take(rows, self.device)
        return prepared.vectors[rows].to(self.device)

    def encode_items(self, inputs: Any) -> Encoding:
        """GCN: subgraphs to one token each, from both entities and the mean over the nodes."""
        graph: GraphBatch = inputs[0]
        states = self._node_vectors(inputs[1])
        for convolution in self.convolutions:
            states = convolution(self.dropout(states), graph.edges).relu()
        entities = (states[graph.firsts], states[graph.firsts + 1])
        mean = global_mean_pool(states, graph.owner, len(graph.firsts))
        return _single(self.graph_projection(torch.cat([*entities, mean], dim=-1)).relu())

    def _node_vectors(self, nodes: Tensor | TokenBatch) -> Tensor:
        if isinstance(nodes, Tensor):
            return nodes
        if self.node_words is None:
            raise InvalidSpec(
                "nodes came as tokens, and this model reads vectors of its frozen encoder"
            )
        return mean_of(self.node_words(nodes.ids), nodes.mask)

    def encode_texts(self, inputs: Any) -> Encoding:
        """BERT and projection: texts to one token each, the mean over their words."""
        vectors = inputs
        if self.bert is not None:
            vectors = mean_of(bert_tokens(self.bert, inputs), inputs.mask)
        return _single(self.text_projection(self.dropout(vectors)).relu())

    def fuse(self, item: Encoding, text: Encoding) -> Fused:
        """FFN on concat(graph, text); readout ``(B, 3d)`` = concat(graph, text, fused)."""
        both = torch.cat([item.pooled, text.pooled], dim=-1)
        readout = torch.cat([both, self.ffn(both)], dim=-1)
        return Fused(readout, self.head(self.dropout(readout)))

    def parts(self) -> dict[Part, list[tuple[str, nn.Parameter]]]:
        """Return every parameter by part; a frozen encoder's weights belong to no model."""
        found: dict[Part, list[tuple[str, nn.Parameter]]] = {
            "item": [],
            "text": [],
            "fusion": [],
            "head": [],
        }
        for name, parameter in self.named_parameters():
            found[_PART_OF[name.split(".")[0]]].append((name, parameter))
        return found

    def set_trainable(self, update: Update) -> list[nn.Parameter]:
        """As `PairModel.set_trainable`; of a published BERT only the last layers are trained."""
        super().set_trainable(update)
        count = self.config.trainable_text_layers
        if self.bert is not None and count:
            for part in (self.bert.embeddings, *self.bert.encoder.layer[:-count]):
                part.requires_grad_(requires_grad=False)
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def save(self, directory: Path) -> None:
        """Write weights, configuration and an own tokenizer; a frozen encoder is only named."""
        weights.save_config(self.config, directory)
        weights.save_weights(self, directory)
        if self.tokenizer is not None:
            self.tokenizer.save(directory, self.config.max_text_tokens)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            CheckpointError: it is damaged, or its frozen encoder is missing or another one.
        """
        config = weights.load_config(GcnBertConfig, directory)
        if config.pretrained is None:
            model = cls(config, TextTokenizer.load(directory), None)
        elif config.pretrained_sha256 is None:
            raise CheckpointError(
                "config.json names a frozen encoder without its pretrained_sha256"
            )
        else:
            folder = pretrained.verify(config.pretrained, config.pretrained_sha256)
            model = cls(config, None, folder)
        weights.load_weights(model, directory)
        return model


_PART_OF: dict[str, Part] = {
    "node_words": "item",
    "convolutions": "item",
    "graph_projection": "item",
    "bert": "text",
    "text_projection": "text",
    "ffn": "fusion",
    "head": "head",
}
"""Part by first word of the parameter's name."""


def _single(vector: Tensor) -> Encoding:
    """Return an encoding of one token."""
    return Encoding(vector[:, None], vector.new_ones(len(vector), 1, dtype=torch.bool), vector)


def _resolved(config: GcnBertConfig, dataset: PairDataset) -> GcnBertConfig:
    """Fill in what depends on the data set and on what is installed."""
    if config.classes is not None and dataset.classes not in (None, config.classes):
        raise InvalidSpec(
            f"config.classes is {config.classes}, and the data set has {dataset.classes}"
        )
    update: dict[str, Any] = {"classes": config.classes or dataset.classes or 2}
    if config.pretrained == "auto":
        update["pretrained"] = pretrained.MINILM if pretrained.minilm_installed() else None
        if update["pretrained"] is None and config.trainable_text_layers:
            raise InvalidSpec(
                "trainable_text_layers needs a pretrained encoder, and MiniLM is not installed"
            )
    return config.model_copy(update=update)


def _own_bert(config: GcnBertConfig) -> BertConfig:
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
