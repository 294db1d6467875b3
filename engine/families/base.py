"""What a family is: unimodal encoders, a fusion module and a head, with their parameters named.

Shapes: B pairs, T_v item tokens, T_l text tokens, d hidden size, p projection size, C classes.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, get_args

import torch
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor, nn

from engine.errors import InvalidSpec
from engine.registry import Registry
from engine.spec import Modality, Update

if TYPE_CHECKING:
    from engine.data.pairs import PairDataset

Part = Literal["item", "text", "fusion", "head"]
DataFact = Literal["items_per_pair", "classes"]
"""Images or graphs of each pair; and one above the highest label, but at least 2 ("match or not"),
with labels or without."""
MULTIPLE_OF = "x-multiple-of"
INSTALLED = "x-installed"
"""In the schema's extras of a field that names a pretrained model: the words for those that come
with a machine. Whoever may name no folder and no hub may say these alone."""


MOST_CLASSES = 100_000


class FamilyConfig(BaseModel):
    """Sizes of a family; stored in the checkpoint, served by the API's catalogue.

    ``x-multiple-of`` in the schema's extras lists pairs of fields, the first a multiple of the
    second; for fields of several sides, side by side. It is checked here and by whoever has the
    schema alone.
    """

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="after")
    def _multiples_hold(self) -> Self:
        extras = self.model_config.get("json_schema_extra")
        rules: Any = extras.get(MULTIPLE_OF, []) if isinstance(extras, dict) else []
        for field, divisor in rules:
            value, unit = getattr(self, field), getattr(self, divisor)
            sides = zip(value, unit, strict=True) if isinstance(value, tuple) else [(value, unit)]
            if any(whole % part for whole, part in sides):
                raise ValueError(f"{field} {value} is no multiple of {divisor} {unit}")
        return self


@dataclass
class Encoding:
    """Output of one unimodal encoder; a pair of k images has them joined: T is k T_v, d is k d.

    Attributes:
        tokens: ``(B, T, d)``.
        mask: ``(B, T)``, 1 where a token counts.
        pooled: ``(B, d)``, the vector that stands for the whole image, graph or text.
    """

    tokens: Tensor
    mask: Tensor
    pooled: Tensor

    def take(self, rows: Tensor) -> "Encoding":
        """Return the encodings of ``rows`` ``(B',)`` of this batch, in that order."""
        rows = rows.to(self.pooled.device)
        return Encoding(self.tokens[rows], self.mask[rows], self.pooled[rows])

    def join(self, count: int) -> "Encoding":
        """Return each ``count`` encodings that follow one another as one.

        Their tokens stand one after the other: ``(count * B, T, d)`` to ``(B, count * T, d)``, and
        pooled ``(count * B, d)`` to ``(B, count * d)``.
        """
        if count == 1:
            return self
        pairs = len(self.pooled) // count
        return Encoding(
            self.tokens.reshape(pairs, -1, self.tokens.shape[-1]),
            self.mask.reshape(pairs, -1),
            self.pooled.reshape(pairs, -1),
        )


@dataclass
class Fused:
    """Output of the fusion module and head for B pairs.

    Attributes:
        readout: ``(B, r)``, the paper's R(f(I, T)): fused [CLS], or concat(graph, text, fused).
        logits: ``(B, C)``; for retrieval C = 2 and class 1 is "match" (ITM).
    """

    readout: Tensor
    logits: Tensor


class PairModel(nn.Module, ABC):
    """A two-modality model split as the paper splits it: f_V, f_L, f_M and a task head.

    Inputs made by `prepare_items` and `prepare_texts` are kept for a whole data set and indexed
    by row, so that images are decoded and texts tokenised once a run.
    """

    family: ClassVar[str]
    modality: ClassVar[Modality]
    config_class: ClassVar[type[FamilyConfig]]
    contrastive: ClassVar[bool] = False
    """Whether `project` and `temperature` are there, which retrieval needs."""
    matching: ClassVar[bool] = True
    """Whether class 1 of two in `fuse`'s logits is a trained "match" (ITM). Without it retrieval
    trains, ranks and scores by the cosine of `project` alone."""
    classifies: ClassVar[bool] = True
    """Whether there is a class head, which every task with labels needs."""
    item_counts: ClassVar[tuple[int, ...]] = (1,)
    """How many images or graphs a pair may have."""
    set_by_data: ClassVar[Mapping[str, DataFact]] = {}
    """Fields of the configuration that the data set decides, and by which fact of it: such a field
    is left out, or says the same. `build` refuses another value, and the service does beforehand."""
    config: FamilyConfig

    @classmethod
    @abstractmethod
    def build(cls, config: FamilyConfig, dataset: "PairDataset", seed: int) -> Self:
        """Make a model to train: tokenizer from the training texts, weights drawn with ``seed``.

        Raises:
            InvalidSpec: the configuration contradicts the data set.
        """

    @classmethod
    @abstractmethod
    def tiny(cls) -> FamilyConfig:
        """Return the smallest useful configuration, for tests."""

    def clone(self) -> Self:
        """Return a copy that shares no trained parameter with this model."""
        return copy.deepcopy(self)

    @property
    def items_per_pair(self) -> int:
        """How many images or graphs each pair has that this model reads, one of `item_counts`."""
        return 1

    @abstractmethod
    def prepare_items(self, items: Sequence[Any]) -> Any:
        """Return what `take` reads inputs from; ``items`` opens images or graphs one at a time."""

    @abstractmethod
    def prepare_texts(self, texts: Sequence[str]) -> Any:
        """Tokenise texts into an indexable batch of inputs."""

    @abstractmethod
    def take(self, prepared: Any, rows: Tensor) -> Any:
        """Return the inputs of ``rows`` ``(B,)`` on the model's device, ready for an encoder."""

    @abstractmethod
    def encode_items(self, inputs: Any) -> Encoding:
        """f_V: images or graphs to ``Encoding``."""

    @abstractmethod
    def encode_texts(self, inputs: Any) -> Encoding:
        """f_L: token ids to ``Encoding``."""

    @abstractmethod
    def fuse(self, item: Encoding, text: Encoding) -> Fused:
        """f_M and head: row i of ``item``, k items joined (`Encoding.join`), with row i of ``text``."""

    def project_items(self, item: Encoding) -> Tensor:
        """Return unit vectors ``(B, p)`` of items, whose cosines with those of texts rank (ITC)."""
        raise NotImplementedError(f"{self.family} has no contrastive projections")

    def project_texts(self, text: Encoding) -> Tensor:
        """Return unit vectors ``(B, p)`` of texts, whose cosines with those of items rank (ITC)."""
        raise NotImplementedError(f"{self.family} has no contrastive projections")

    def project(self, item: Encoding, text: Encoding) -> tuple[Tensor, Tensor]:
        """Return the unit vectors ``(B, p)`` of items and of texts."""
        return self.project_items(item), self.project_texts(text)

    def refuse_image_pairs(self) -> None:
        """Raise `InvalidSpec` when a pair has two images: no cosine ranks them."""
        if self.items_per_pair > 1:
            raise InvalidSpec(
                f"this {self.family} was built for pairs of {self.items_per_pair} images, "
                "and similarities rank single ones"
            )

    @property
    def temperature(self) -> Tensor:
        """ITC temperature, a scalar."""
        raise NotImplementedError(f"{self.family} has no contrastive temperature")

    @staticmethod
    @abstractmethod
    def part_of(name: str) -> Part:
        """Return the part that the parameter ``name`` belongs to."""

    def parts(self) -> dict[Part, list[tuple[str, nn.Parameter]]]:
        """Return every parameter exactly once, named, by part; a part may be empty."""
        found: dict[Part, list[tuple[str, nn.Parameter]]] = {part: [] for part in get_args(Part)}
        for name, parameter in self.named_parameters():
            found[self.part_of(name)].append((name, parameter))
        return found

    def set_trainable(self, update: Update) -> list[nn.Parameter]:
        """Let gradients through what ``update`` selects, nowhere else, and return those parameters.

        ``fusion`` (the paper's -F) is fusion and head; ``all`` is everything that the family
        trains.
        """
        chosen = []
        for part, named in self.parts().items():
            for _, parameter in named:
                on = update == "all" or part in ("fusion", "head")
                parameter.requires_grad_(on)
                if on:
                    chosen.append(parameter)
        return chosen

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write weights (safetensors), ``config.json`` and tokenizer files; no time, no host."""

    @classmethod
    @abstractmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote; raises `CheckpointError`. Never unpickles."""

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device


families: Registry[type[PairModel]] = Registry("families", PairModel)
