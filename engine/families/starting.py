"""How a model starts: what its data set decides, and a tokenizer of its own."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, Self, TypeVar

from engine.data.pairs import PairDataset
from engine.errors import InvalidSpec
from engine.families.base import FamilyConfig
from engine.tokenizers import BERT, SpecialTokens, TextTokenizer, train_tokenizer


class Worded(Protocol):
    """A configuration with the largest size of an own tokenizer."""

    @property
    def vocabulary(self) -> int:
        """Number of token ids."""

    def model_copy(self, *, update: Mapping[str, Any]) -> Self:
        """Return a copy with other values."""


ConfigT = TypeVar("ConfigT", bound=FamilyConfig)
WordedT = TypeVar("WordedT", bound=Worded)


def expect(config: FamilyConfig, kind: type[ConfigT], family: str) -> ConfigT:
    """Return ``config``; raises `InvalidSpec` when it is the configuration of another family."""
    if not isinstance(config, kind):
        raise InvalidSpec(f"{family} needs {kind.__name__}, and {type(config).__name__} came")
    return config


def classes_for(wanted: int | None, dataset: PairDataset) -> int:
    """Return the classes of the head: those of the data set, and at least 2, "match or not".

    Raises:
        InvalidSpec: ``wanted``, the configuration's number, is another one.
    """
    needed = max(dataset.classes or 0, 2)
    if wanted not in (None, needed):
        found = f"has {dataset.classes} classes" if dataset.classes else "has no labels"
        raise InvalidSpec(
            f"config.classes is {wanted}, and the data set {found}: leave it out, or say {needed}"
        )
    return needed


def images_for(wanted: int | None, dataset: PairDataset) -> int:
    """Return how many images each pair of the data set has, 1 or 2.

    Raises:
        InvalidSpec: it is another number, or differs between pairs or from ``wanted``, the
            configuration's.
    """
    found = sorted({len(pair.items) for pair in dataset.pairs}) or [wanted or 1]
    if len(found) > 1 or found[0] not in ((1, 2) if wanted is None else (wanted,)):
        rule = "every pair must have 1 image, or every pair 2"
        raise InvalidSpec(
            f"{rule if wanted is None else f'config.images is {wanted}'}; pairs of {dataset.name} "
            f"have {' or '.join(map(str, found))}"
        )
    return found[0]


def training_texts(dataset: PairDataset) -> list[str]:
    """Return what an own tokenizer may learn from: the texts of the training pairs."""
    return [pair.text for pair in dataset.split("train")]


def own_tokenizer(
    config: WordedT, texts: Iterable[str], special: SpecialTokens = BERT
) -> tuple[WordedT, TextTokenizer]:
    """Train a tokenizer of at most ``config.vocabulary`` ids; return it after its configuration."""
    tokenizer = train_tokenizer(texts, config.vocabulary, special)
    return config.model_copy(update={"vocabulary": tokenizer.vocabulary}), tokenizer
