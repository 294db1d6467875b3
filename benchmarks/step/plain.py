"""MultiDelete as a plain loop (paper, section 2): the same loss, and nothing is kept or shared.

Each step runs the teacher anew, and passes D_f, D_r and mismatched pairs one after the other through
the student. It is the yardstick of the engine's step, and says the formulas a second time.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.step.world import World
from engine.families.base import Encoding, PairModel
from engine.methods.multidelete import Batch
from engine.methods.multidelete_defaults import defaults
from engine.methods.multidelete_params import MultiDeleteParams, TaskDefaults
from engine.methods.targets import (
    beside,
    equal_weights,
    indifferent_weights,
    unrelated_pairs,
)
from engine.unlearning import Truths, Unlearning, draw

Both = tuple[Encoding, Encoding]

CLIP = 1.0
"""Largest norm of the gradient, as in the engine's loop."""


def weights_of(run: Unlearning) -> TaskDefaults:
    """Return the settings of a run, with the task's defaults where it gives none."""
    own = defaults(run.task, run.teacher.modality, run.update)
    return own.given(run.parameters_as(MultiDeleteParams))


def plain_batches(run: Unlearning) -> Iterator[Batch]:
    """Cut D_f, and D_r as far as it is needed, into the batches of one epoch, in their order."""
    params = run.parameters_as(MultiDeleteParams)
    ratio = weights_of(run).retain_ratio
    for places in torch.arange(len(run.forget)).split(params.batch_size):
        count = max(round(ratio * len(places)), params.least_retained)
        retain = run.retain[torch.arange(count) % len(run.retain)]
        partners = torch.arange(count).roll(1)
        yield Batch(run.forget[places], places, retain, partners, run.forgotten[:0], places[:0])


class PlainLoop:
    """The loss and the step.

    Args:
        world: teacher, pairs, and inputs that keep no encoding.
        student: the model to change.

    Attributes:
        push: how hard each deleted pair is pushed ``(F + G,)``, those of earlier runs last; how far is
            enough is no part of a step.
    """

    def __init__(self, world: World, student: PairModel) -> None:
        self.run, self.inputs = world.run, world.plain_inputs
        self.teacher, self.student = world.run.teacher, student
        self.weights = weights_of(world.run)
        self.items_of, self.texts_of = self._unrelated()
        self.shares = self._shares()
        self.push = torch.ones(self.items_of.shape[1], device=self.teacher.device)
        self.trained = [p for p in student.parameters() if p.requires_grad]
        # The engine's optimiser: what is compared is the way to the gradient.
        rate = self.weights.learning_rate
        self.optimizer = torch.optim.AdamW(self.trained, lr=rate, weight_decay=0.0, fused=True)

    def _unrelated(self) -> tuple[Tensor, Tensor]:
        """Draw the unrelated pairs of each deleted one as the engine does: rows ``(K, F + G)``."""
        run = self.run
        params = run.parameters_as(MultiDeleteParams)
        generator = torch.Generator().manual_seed(run.seed)
        earlier = draw(run.forgotten, len(run.forgotten), generator)
        truths, everything = Truths(run.inputs), torch.cat([run.retain, run.forget])
        drawn = unrelated_pairs(truths, run.forget, everything, params.draws, generator)
        if len(earlier):
            more = unrelated_pairs(truths, earlier, everything, params.draws, generator)
            drawn = beside(drawn, more, params.draws)
        shape = (params.draws, len(run.forget) + len(earlier))
        return drawn[0].view(shape), drawn[1].view(shape)

    def _shares(self) -> Tensor:
        """Return how much each draw counts ``(K, F + G)``: the choice of targets is no part of a step."""
        draws, deleted = self.items_of.shape
        if not (self.run.task.labelled and self.run.parameters_as(MultiDeleteParams).balanced):
            return equal_weights(draws, deleted)
        logits = []
        with torch.no_grad():
            for p, q in zip(self.items_of, self.texts_of, strict=True):
                fused = self.teacher.fuse(*self.inputs.encode_across(self.teacher, p, q))
                logits.append(fused.logits)
        return indifferent_weights(torch.cat(logits), torch.arange(draws * deleted), draws)

    def step(self, batch: Batch) -> None:
        """Take one step on the pairs of ``batch``."""
        self.optimizer.zero_grad()
        total = torch.stack(list(self.loss(batch).values())).sum()
        total.backward()
        nn.utils.clip_grad_norm_(self.trained, CLIP)
        self.optimizer.step()

    def checkpoint(self) -> dict[str, Tensor]:
        """Return a copy of what is trained: the paper selects the best checkpoint of a deletion."""
        named = self.student.named_parameters()
        return {name: p.detach().clone() for name, p in named if p.requires_grad}

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted terms by the engine's names."""
        decoupling, unimodal = self._deleted(batch)
        terms = {
            "decoupling": self.weights.alpha * decoupling,
            "multimodal_retention": self.weights.beta * self._retained(batch),
        }
        if self.run.update == "all":
            terms["unimodal_retention"] = self.weights.gamma * unimodal
        return terms

    def _deleted(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """L_MD (equation 2) and L_UKR (equation 6), from one pass of the student over D_f."""
        mine = self.inputs.encode(self.student, batch.forget)
        total = self._decoupling(mine, batch.places)
        if len(batch.forgotten):
            earlier = self.inputs.encode(self.student, batch.forgotten)
            share = min(1.0, len(batch.forgotten) / len(batch.forget))
            total = total + share * self._decoupling(earlier, batch.again)
        return total, self._drift(*mine, batch.forget)

    def _decoupling(self, mine: Both, at: Tensor) -> Tensor:
        """Return the mean of L_MD over pairs whose unrelated pairs stand ``at`` ``(B,)``."""
        readout = self.student.fuse(*mine).readout
        places = self.items_of[:, at], self.texts_of[:, at]
        total = readout.new_zeros(())
        shares = self.push[at] * self.shares[:, at].to(readout.device)
        for p, q, share in zip(*places, shares, strict=True):
            with torch.no_grad():
                others = self.inputs.encode_across(self.teacher, p, q)
                wanted = self.teacher.fuse(*others).readout
            losses = (readout - wanted).square().mean(dim=1)
            if self.weights.similarity:
                cosine = _cosines(self.student, *mine).diagonal()
                with torch.no_grad():
                    other = _cosines(self.teacher, *others).diagonal()
                losses = losses + self.weights.similarity * (cosine - other).square()
            total = total + (share * losses).mean()
        return total

    def _drift(self, item: Encoding, text: Encoding, rows: Tensor) -> Tensor:
        with torch.no_grad():
            known_item, known_text = self.inputs.encode(self.teacher, rows)
        moved = [item.pooled - known_item.pooled, text.pooled - known_text.pooled]
        return torch.cat(moved, dim=1).square().sum(dim=1).mean()

    def _retained(self, batch: Batch) -> Tensor:
        """L_MKR: pairs of D_r, and earlier deleted ones, stay where they are (equation 4)."""
        rows = torch.cat([batch.retain, batch.forgotten])
        mine = self.inputs.encode(self.student, rows)
        with torch.no_grad():
            theirs = self.inputs.encode(self.teacher, rows)
            known = self.teacher.fuse(*theirs).readout
        loss = functional.mse_loss(self.student.fuse(*mine).readout, known)
        if self.weights.kept_similarity:
            with torch.no_grad():
                wanted = _cosines(self.teacher, *theirs)
            cosines = _cosines(self.student, *mine)
            loss = loss + self.weights.kept_similarity * functional.mse_loss(cosines, wanted)
        if self.weights.mismatched:
            loss = loss + self.weights.mismatched * self._mismatched(batch, mine, theirs)
        return loss

    def _mismatched(self, batch: Batch, mine: Both, theirs: Both) -> Tensor:
        """The same of retained items with the texts of other retained pairs."""
        items = torch.arange(len(batch.retain))
        made = self.student.fuse(mine[0].take(items), mine[1].take(batch.partners)).readout
        with torch.no_grad():
            known = self.teacher.fuse(theirs[0].take(items), theirs[1].take(batch.partners)).readout
        return functional.mse_loss(made, known)


def _cosines(model: PairModel, item: Encoding, text: Encoding) -> Tensor:
    """Return the cosine of every item with every text, ``(B, B)``."""
    items, texts = model.project(item, text)
    return items @ texts.T
