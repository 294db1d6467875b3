"""A data set as one model reads it: every image, graph and text prepared once, and found by row."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, overload

import torch
from torch import Tensor

from engine.data.pairs import ItemStore, PairDataset
from engine.errors import InvalidSpec
from engine.families.base import Encoding, PairModel
from engine.frozen import FrozenEncodings
from engine.shares import encoded
from engine.spec import Split

GALLERY = 256
"""Most candidates that a pair's output distribution is taken over."""
NAMED = 20
"""Most unknown ids that an error names."""


class LazyItems(Sequence[Any]):
    """Images or graphs that are opened one at a time, as they are read."""

    def __init__(self, store: ItemStore, references: Sequence[str]) -> None:
        self._store = store
        self._references = references

    @overload
    def __getitem__(self, index: int) -> Any: ...

    @overload
    def __getitem__(self, index: slice) -> "LazyItems": ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return LazyItems(self._store, self._references[index])
        return self._store.load(self._references[index])

    def __len__(self) -> int:
        return len(self._references)


class Inputs:
    """The N pairs of a data set, prepared for a model and every copy of it.

    Distinct references are prepared once, and so are distinct texts: pairs point to them by row.
    Images are opened when they are first encoded.

    Attributes:
        pairs: in manifest order; the row of a pair is its place here.
        labels: ``(N,)`` int64, -1 where a pair has none.
        item_rows: ``(N, k)`` rows of its k images or its graph.
        text_rows: ``(N,)`` row of its text.
        items: number of distinct images or graphs.
        texts: number of distinct texts.
        index: row by pair id.
        gallery: ``(G,)`` rows of the pairs that are candidates in `Task.outputs`; see
            `choose_gallery`.

    Args:
        model: says how items and texts are prepared.
        dataset: whose pairs and items.

    Raises:
        DataError: a graph is broken; the message names it. Encoding says so of images.
        InvalidSpec: the family cannot read this data set.
    """

    def __init__(self, model: PairModel, dataset: PairDataset) -> None:
        _check(model, dataset)
        self.pairs = dataset.pairs
        self.labels = torch.tensor([-1 if p.label is None else p.label for p in self.pairs])
        references, rows = _distinct(r for p in self.pairs for r in p.items)
        texts, text_rows = _distinct(p.text for p in self.pairs)
        self.item_rows = rows.view(len(self.pairs), model.items_per_pair)
        self.text_rows = text_rows
        self.items, self.texts = len(references), len(texts)
        self.index = {pair.id: row for row, pair in enumerate(self.pairs)}
        self._prepared_items = model.prepare_items(LazyItems(dataset.items, references))
        self._prepared_texts = model.prepare_texts(texts)
        self._frozen: dict[PairModel, tuple[FrozenEncodings, FrozenEncodings]] = {}
        self.gallery = self.choose_gallery(self.split("train"))

    def __len__(self) -> int:
        return len(self.pairs)

    def rows(self, pair_ids: Sequence[str]) -> Tensor:
        """Return the rows ``(n,)`` of pairs by id; raises `InvalidSpec` that names unknown ids."""
        unknown = [name for name in pair_ids if name not in self.index]
        if unknown:
            shown = ", ".join(unknown[:NAMED])
            raise InvalidSpec(
                f"{len(unknown)} pair ids are not in the data set, the first: {shown}"
            )
        return torch.tensor([self.index[name] for name in pair_ids], dtype=torch.int64)

    def split(self, name: Split) -> Tensor:
        """Return the rows ``(n,)`` of one split, in manifest order."""
        chosen = [row for row, pair in enumerate(self.pairs) if pair.split == name]
        return torch.tensor(chosen, dtype=torch.int64)

    def open_items(self, model: PairModel, rows: int = 256) -> None:
        """Open every image now: for a run that needs all, an error is better at its start.

        Raises:
            DataError: an image is missing or broken; the message names it.
        """
        for part in torch.arange(self.items).split(rows):
            model.take(self._prepared_items, part)

    def choose_gallery(self, rows: Tensor, seed: int = 0, size: int = GALLERY) -> Tensor:
        """Draw the candidates of `Task.outputs` from ``rows``, at most ``size``, and return them.

        A membership attack compares outputs over the same candidates, so the caller draws them
        once from the retained pairs, which have the same standing for members and non-members.
        """
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
        self.gallery = rows[order[:size]].sort().values
        return self.gallery

    def encode(self, model: PairModel, rows: Tensor) -> tuple[Encoding, Encoding]:
        """Return the unimodal encodings of the items and the texts of pairs ``rows`` ``(B,)``.

        The k items of a pair are one encoding; see `Encoding.join`.
        """
        return self.encode_across(model, rows, rows)

    def encode_across(
        self, model: PairModel, items_of: Tensor, texts_of: Tensor
    ) -> tuple[Encoding, Encoding]:
        """Return the encodings of the items of pairs ``items_of`` and texts of ``texts_of``."""
        items = self.encode_items_of(model, items_of)
        return items, self.encode_texts(model, self.text_rows[texts_of])

    def encode_items_of(self, model: PairModel, rows: Tensor) -> Encoding:
        """Encode the k items of pairs ``rows`` ``(B,)``, joined to one encoding of each pair."""
        found = self.encode_items(model, self.item_rows[rows].flatten())
        return found.join(self.item_rows.shape[1])

    def encode_items(self, model: PairModel, item_rows: Tensor) -> Encoding:
        """Encode items by item row ``(B,)``; an item that stands there twice is encoded once."""
        if model in self._frozen:
            return self._frozen[model][0].take(item_rows, model.device)
        distinct, places = item_rows.unique(return_inverse=True)
        return self._made_items(model, distinct).take(places)

    def encode_texts(self, model: PairModel, text_rows: Tensor) -> Encoding:
        """Encode texts by text row ``(B,)``; a text that stands there twice is encoded once."""
        if model in self._frozen:
            return self._frozen[model][1].take(text_rows, model.device)
        distinct, places = text_rows.unique(return_inverse=True)
        return self._made_texts(model, distinct).take(places)

    @contextmanager
    def freeze(self, model: PairModel) -> Iterator[None]:
        """Within the context, compute each unimodal encoding of ``model`` once and keep it.

        For models whose unimodal encoders do not change: a teacher, or a student of which only the
        fusion is trained. The encodings carry no gradient and are made without dropout.
        """
        if model in self._frozen:
            yield
            return
        self._frozen[model] = (
            FrozenEncodings(self.items, lambda rows: self._still_items(model, rows)),
            FrozenEncodings(self.texts, lambda rows: self._still_texts(model, rows)),
        )
        try:
            yield
        finally:
            del self._frozen[model]

    def _still_items(self, model: PairModel, rows: Tensor) -> Encoding:
        with still(model):
            return self._made_items(model, rows)

    def _still_texts(self, model: PairModel, rows: Tensor) -> Encoding:
        with still(model):
            return self._made_texts(model, rows)

    def _made_items(self, model: PairModel, rows: Tensor) -> Encoding:
        prepared = self._prepared_items
        return encoded(model, rows, lambda part: model.encode_items(model.take(prepared, part)))

    def _made_texts(self, model: PairModel, rows: Tensor) -> Encoding:
        prepared = self._prepared_texts
        return encoded(model, rows, lambda part: model.encode_texts(model.take(prepared, part)))


@contextmanager
def still(model: PairModel) -> Iterator[None]:
    """Within the context, ``model`` runs without dropout and without gradient."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def _check(model: PairModel, dataset: PairDataset) -> None:
    if model.modality != dataset.modality:
        raise InvalidSpec(
            f"{model.family} reads {model.modality}s, "
            f"and data set {dataset.name} has {dataset.modality}s"
        )
    for pair in dataset.pairs:
        if len(pair.items) != model.items_per_pair:
            raise InvalidSpec(
                f"{model.family} reads {model.items_per_pair} {model.modality} a pair, "
                f"and pair {pair.id!r} has {len(pair.items)}"
            )


def _distinct(values: Any) -> tuple[list[str], Tensor]:
    """Return distinct values in order of appearance, and the row of each value among them."""
    known: dict[str, int] = {}
    rows = [known.setdefault(value, len(known)) for value in values]
    return list(known), torch.tensor(rows, dtype=torch.int64)
