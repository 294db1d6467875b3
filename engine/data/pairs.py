"""Pairs and data sets, as every format, family, task and metric sees them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from engine.spec import Modality, Split


@dataclass(frozen=True, slots=True)
class Pair:
    """One (image, text) or (graph, text) example.

    Attributes:
        id: stable id in the data set.
        items: references of its images (one, or two for image pairs) or of its graph.
        item_ids: ids of those images or that graph, by which a deletion can name them.
        text: caption, hypothesis, statement or sentence.
        text_id: id of the text.
        label: class index, or None for retrieval.
        split: ``train``, ``val`` or ``test``.
        line: of the manifest, for errors that name the pair.
    """

    id: str
    items: tuple[str, ...]
    item_ids: tuple[str, ...]
    text: str
    text_id: str
    label: int | None
    split: Split
    line: int | None = field(default=None, compare=False, repr=False)


class ItemStore(Protocol):
    """Opens the images or graphs that pairs refer to."""

    def load(self, reference: str) -> Any:
        """Return a ``PIL.Image`` (RGB) or a `GraphItem`; raises `DataError` naming the reference."""


@dataclass(frozen=True)
class PairDataset:
    """A data set: all its pairs in manifest order and the store of their items."""

    name: str
    modality: Modality
    pairs: Sequence[Pair]
    items: ItemStore
    classes: int | None = None

    def split(self, name: Split) -> list[Pair]:
        """Return the pairs of one split, in manifest order."""
        return [pair for pair in self.pairs if pair.split == name]
