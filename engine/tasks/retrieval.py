"""Image and text retrieval (IR, TR), as ALBEF trains and ranks (Li et al. 2021).

Loss = ITC + ITM: a contrastive loss over the batch, and "match or not" on each pair and on two
negatives, another text for its image and another image for its text. Ranking = contrastive
similarity, of which the first k are ranked anew by the probability of a match. A family without a
trained "match" (CLIP, Radford et al. 2021) learns by ITC alone, and its similarity ranks alone and
is the pair score.

What differs from the paper: one text of each image in an epoch, so that no batch holds two texts
of one image; half of the ITM negatives are easy ones (`EASY_NEGATIVES`); captions that are equal
word for word share the contrastive target; no momentum queue.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from engine.errors import InvalidSpec
from engine.families.base import Encoding, PairModel
from engine.inputs import Inputs, still
from engine.shares import fused
from engine.spec import Metric
from engine.tasks.base import (
    BatchSize,
    Epochs,
    LearningRate,
    Task,
    TrainingRecipe,
    cut,
    require_finite,
    tasks,
)
from engine.tasks.recall import DEPTHS, Ranking, recall_metrics, relevance

BATCH = 256
"""Items, texts or pairs that are encoded or fused at once when nothing is trained."""
VALIDATED = 1000
"""Most pairs that are ranked to compare epochs."""
RERANKED_IN_VALIDATION = 4
"""Candidates that ITM ranks anew for each query, to compare epochs."""
EASY_NEGATIVES = 0.5
"""Share of the ITM negatives that are drawn without regard to similarity. A head that starts from
nothing learns nothing from the hardest ones alone: its loss stays at that of a guess."""
RERANKED = 16
"""Candidates of each query that are ranked anew by default: enough for galleries of hundreds."""
MOST_RERANKED = 128
"""Of the paper, for galleries of thousands."""


class RetrievalRecipe(TrainingRecipe):
    """Defaults for a few thousand images and a model that starts from nothing."""

    epochs: Epochs = 30
    batch_size: BatchSize = 64
    learning_rate: LearningRate = 1e-3
    rerank: int = Field(
        default=RERANKED,
        ge=0,
        le=MOST_RERANKED,
        description="candidates of each query that the match head ranks anew when the model is "
        "measured; 0: similarity alone, as always where there is no such head",
    )


@tasks.register("retrieval")
class Retrieval(Task):
    """Retrieval in both directions.

    Args:
        rerank: how many candidates of each query are ranked anew by ITM, at most `MOST_RERANKED`;
            0 ranks by similarity alone. A model's recipe says it, see `configure`.
    """

    name = "retrieval"
    modalities = ("image",)
    contrastive = True
    least_items = 2
    recipe = RetrievalRecipe

    def __init__(self, rerank: int = RERANKED) -> None:
        if not 0 <= rerank <= MOST_RERANKED:
            raise InvalidSpec(f"rerank must be 0 to {MOST_RERANKED}, and {rerank} came")
        self.rerank = rerank

    def configure(self, recipe: TrainingRecipe) -> None:
        """Rank as deep as the recipe says: the same before and after a model forgets."""
        if isinstance(recipe, RetrievalRecipe):
            self.rerank = recipe.rerank

    def batches(
        self, inputs: Inputs, rows: Tensor, batch_size: int, generator: torch.Generator
    ) -> Iterator[Tensor]:
        """Cut one epoch: every item of ``rows`` ``(N,)`` once, with a text drawn for it."""
        shuffled = rows[torch.randperm(len(rows), generator=generator)]
        items = inputs.item_rows[shuffled, 0]
        # The first of each item in the shuffled order is a draw of one of its texts, and the order
        # of those firsts is a shuffle of the items.
        order = torch.full((inputs.items,), len(rows), dtype=torch.int64)
        order.scatter_reduce_(0, items, torch.arange(len(rows)), "amin")
        firsts = order[order < len(rows)].sort().values
        return cut(shuffled[firsts], batch_size)

    def loss(self, model: PairModel, inputs: Inputs, rows: Tensor) -> dict[str, Tensor]:
        """Return ``itc`` and ``itm`` on ``rows`` ``(B,)``, in nats; torch draws negatives.

        A family that has no trained match has no ``itm``.
        """
        items, texts = inputs.encode(model, rows)
        item_vectors, text_vectors = model.project(items, texts)
        similarity = item_vectors @ text_vectors.T / model.temperature
        related = _related(inputs, rows).to(similarity.device)
        terms = {"itc": contrastive_loss(similarity, related)}
        if model.matching:
            terms["itm"] = self._matching(model, items, texts, similarity.detach(), related)
        return terms

    @staticmethod
    def _matching(
        model: PairModel, items: Encoding, texts: Encoding, similarity: Tensor, related: Tensor
    ) -> Tensor:
        """Return the ITM loss over B true pairs and up to 2B negatives."""
        rows = torch.arange(len(related), device=related.device)
        text_of, has_text = hard_negatives(similarity, related)
        item_of, has_item = hard_negatives(similarity.T, related.T)
        left = torch.cat([rows, rows[has_text], item_of])
        right = torch.cat([rows, text_of, rows[has_item]])
        logits = fused(model, items.take(left), texts.take(right)).logits
        match = torch.zeros(len(left), dtype=torch.int64, device=logits.device)
        match[: len(rows)] = 1
        return functional.cross_entropy(logits, match)

    def scores(self, model: PairModel, inputs: Inputs, rows: Tensor) -> Tensor:
        """Return the ITM probability ``(B,)`` that image and text of a pair match.

        Of a family that has no trained match, the cosine of image and text.
        """
        with still(model):
            made = [_pair_scores(model, inputs, part) for part in rows.split(BATCH)]
        return torch.cat(made) if made else torch.zeros(0)

    def outputs(self, model: PairModel, inputs: Inputs, rows: Tensor) -> Tensor:
        """Return softmax ``(B, 1 + G)`` of an image over its own text and G of the gallery.

        The own text comes first. A candidate that is itself a right text of the image, or equal
        to its own word for word, has probability 0: it would take a share of the own text's.
        """
        with still(model):
            texts = _text_vectors(model, inputs, inputs.text_rows[inputs.gallery])
            made = [self._distribution(model, inputs, part, texts) for part in rows.split(BATCH)]
        return torch.cat(made) if made else torch.zeros(0, 1 + len(texts))

    @staticmethod
    def _distribution(model: PairModel, inputs: Inputs, rows: Tensor, texts: Tensor) -> Tensor:
        images = _item_vectors(model, inputs, inputs.item_rows[rows, 0])
        own = _text_vectors(model, inputs, inputs.text_rows[rows])
        cosines = torch.cat([(images * own).sum(-1, keepdim=True), images @ texts.T], dim=1)
        logits = cosines / model.temperature.cpu()
        right = _related(inputs, rows, inputs.gallery)
        logits[:, 1:].masked_fill_(right, float("-inf"))
        return logits.softmax(-1)

    def trials(self, model: PairModel, inputs: Inputs, rows: Tensor) -> tuple[Tensor, ...]:
        """Return each query's mean recall, by direction, over at most `VALIDATED` pairs.

        Only the first few candidates are ranked anew. Some must be: similarity and ITM head do not
        reach their best together.
        """
        if not len(rows):
            return ()
        part = rows[:: -(-len(rows) // VALIDATED)]
        ranking = self._rank(model, inputs, part, min(self.rerank, RERANKED_IN_VALIDATION))
        return tuple(100 * torch.from_numpy(hits).mean(dim=1) for hits in ranking.hits)

    def utility(self, model: PairModel, inputs: Inputs, rows: Tensor) -> list[Metric]:
        """Return ``d_test`` and each direction's recall at 1, 5 and 10.

        The gallery is every distinct image and text of ``rows``; each text of an image counts as
        right, and so does each image of a text. D_test is the mean of the six recalls.
        """
        if not len(rows):
            return recall_metrics(None)
        return recall_metrics(self._rank(model, inputs, rows, self.rerank))

    @staticmethod
    def _rank(model: PairModel, inputs: Inputs, rows: Tensor, rerank: int) -> Ranking:
        items, texts, right = relevance(inputs.item_rows[rows, 0], inputs.text_rows[rows])
        depth = rerank if model.matching else 0
        with still(model):
            images = _item_vectors(model, inputs, items)
            similarity = images @ _text_vectors(model, inputs, texts).T
            require_finite(similarity, "similarities of images and texts")
            by_text, by_item = similarity.T.clone(), similarity.clone()
            if depth:
                _rerank(model, inputs, (items, texts), by_item, depth, swap=False)
                _rerank(model, inputs, (items, texts), by_text, depth, swap=True)
        return replace(Ranking.of(by_text, right.T, by_item, right, DEPTHS), reranked=depth)


def contrastive_loss(similarity: Tensor, related: Tensor) -> Tensor:
    """Return ITC: the mean over both directions of the cross-entropy to the related candidates.

    Args:
        similarity: ``(B, B)`` cosines of images (rows) with texts, divided by the temperature.
        related: ``(B, B)`` bool, where image and text belong together; a row's target is uniform
            over them.
    """
    target = related.to(similarity.dtype)
    by_image = functional.cross_entropy(similarity, target / target.sum(1, keepdim=True))
    by_text = functional.cross_entropy(similarity.T, target.T / target.T.sum(1, keepdim=True))
    return (by_image + by_text) / 2


def hard_negatives(similarity: Tensor, related: Tensor) -> tuple[Tensor, Tensor]:
    """Draw for each row an unrelated column: by similarity, or any one (`EASY_NEGATIVES`).

    Args:
        similarity: ``(B, B)``, divided by the temperature.
        related: ``(B, B)`` bool; related columns are never drawn.

    Returns:
        The columns ``(B',)`` of the rows that have an unrelated one, and which rows ``(B,)``
        those are.

    Raises:
        NonFiniteLoss: a similarity is not finite, so that nothing can be drawn by it.
    """
    possible = ~related.all(1)
    if not possible.any():
        return torch.zeros(0, dtype=torch.int64, device=related.device), possible
    hard = similarity[possible].masked_fill(related[possible], float("-inf")).float().softmax(1)
    easy = functional.normalize((~related[possible]).float(), p=1, dim=1)
    weights = (1 - EASY_NEGATIVES) * hard + EASY_NEGATIVES * easy
    require_finite(weights, "the chances of negatives to be drawn")
    return torch.multinomial(weights, 1)[:, 0], possible


def _related(inputs: Inputs, rows: Tensor, others: Tensor | None = None) -> Tensor:
    """Return ``(B, C)``: image of ``rows`` and text of ``others`` belong together or are alike."""
    columns = rows if others is None else others
    same_item = inputs.item_rows[rows, 0][:, None] == inputs.item_rows[columns, 0][None]
    same_text = inputs.text_rows[rows][:, None] == inputs.text_rows[columns][None]
    return same_item | same_text


def _pair_scores(model: PairModel, inputs: Inputs, rows: Tensor) -> Tensor:
    items, texts = inputs.encode(model, rows)
    if model.matching:
        return fused(model, items, texts).logits.float().softmax(-1)[:, 1].cpu()
    item_vectors, text_vectors = model.project(items, texts)
    return (item_vectors * text_vectors).sum(-1).float().cpu()


def _item_vectors(model: PairModel, inputs: Inputs, item_rows: Tensor) -> Tensor:
    """Return the ITC vectors ``(n, p)`` of items, on the CPU, in batches."""
    made = []
    for part in item_rows.split(BATCH):
        items = inputs.encode_items(model, part)
        made.append(model.project_items(items).float().cpu())
    return torch.cat(made)


def _text_vectors(model: PairModel, inputs: Inputs, text_rows: Tensor) -> Tensor:
    """Return the ITC vectors ``(n, p)`` of texts, on the CPU, in batches."""
    made = []
    for part in text_rows.split(BATCH):
        texts = inputs.encode_texts(model, part)
        made.append(model.project_texts(texts).float().cpu())
    return torch.cat(made)


def _rerank(
    model: PairModel,
    inputs: Inputs,
    gallery: tuple[Tensor, Tensor],
    scores: Tensor,
    count: int,
    *,
    swap: bool,
) -> None:
    """Lift the first ``count`` candidates of each query above the rest, ordered by ITM.

    ``scores`` ``(queries, candidates)`` are cosines and are changed in place; with ``swap`` the
    queries are texts. ITM probabilities are at least 0 and cosines at most 1, so that 2 is room
    enough.
    """
    count = min(count, scores.shape[1])
    best = scores.topk(count, dim=1).indices
    queries = torch.arange(len(scores)).repeat_interleave(count)
    chosen = best.reshape(-1)
    items, texts = (chosen, queries) if swap else (queries, chosen)
    lifted = []
    for left, right in zip(items.split(BATCH), texts.split(BATCH), strict=True):
        item = inputs.encode_items(model, gallery[0][left])
        text = inputs.encode_texts(model, gallery[1][right])
        logits = fused(model, item, text).logits.float()
        lifted.append((logits[:, 1] - logits[:, 0]).sigmoid().cpu())
    matches = torch.cat(lifted)
    require_finite(matches, "probabilities of a match")
    scores[queries, chosen] = matches + 2
