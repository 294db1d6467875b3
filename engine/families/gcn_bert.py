"""GCN + BERT for (graph, text) pairs, as in the paper's graph-text experiment.

f_V is a graph convolutional network (Kipf and Welling 2017) over the pair's subgraph, read at the
two entities and as a mean; f_L is a BERT; f_M is an FFN on concat(graph, text); the classifier
reads concat(graph, text, fused), which is also the readout.

Three ways to read text, by ``pretrained`` and ``trainable_text_layers``: a frozen published
encoder, whose vectors are made once a run; the same encoder with its last layers trained; or an
own BERT from nothing. Nodes are read by the frozen encoder, or else as a trained mean of token
vectors.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch_geometric.nn import GCNConv, global_mean_pool
from transformers import BertModel

from engine.data.pairs import PairDataset
from engine.errors import CheckpointError, InvalidSpec
from engine.families import pretrained, starting, weights
from engine.families.base import (
    DataFact,
    Encoding,
    FamilyConfig,
    Fused,
    PairModel,
    Part,
    families,
)
from engine.families.gcn_bert_sizes import GcnBertConfig, own_bert, resolved
from engine.families.graphs import GraphBatch, GraphTable, graph_table
from engine.families.sentences import FrozenEncoder, bert_tokens, frozen_encoder, mean_of
from engine.spec import Update
from engine.tokenizers import TextTokenizer, TokenBatch, TokenTable


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
    """GCN + BERT: graphs with texts, such as a subgraph and a sentence about it, given a class.

    As a `PairModel`, item is the GCN, text the BERT, fusion the FFN.
    """

    family: ClassVar[str] = "gcn_bert"
    modality = "graph"
    config_class = GcnBertConfig
    set_by_data: ClassVar[Mapping[str, DataFact]] = {"classes": "classes"}
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
            own = BertModel(own_bert(self.config), add_pooling_layer=False)
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
        chosen = resolved(starting.expect(config, GcnBertConfig, cls.family), dataset)
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
        nodes: dict[str, None] = {}
        for pair in dataset.split("train"):
            nodes.update(dict.fromkeys(dataset.items.load(pair.items[0]).texts))
        texts = [*starting.training_texts(dataset), *nodes]
        return cls(*starting.own_tokenizer(config, texts), None)

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
        return VectorTable(self._frozen().embed_pairs(texts, limit, self.device))

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

    @staticmethod
    def part_of(name: str) -> Part:
        """Return the part; a frozen encoder's weights belong to no model."""
        return _PART_OF[name.partition(".")[0]]

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
