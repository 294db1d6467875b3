"""MultiDelete (paper, section 2): decouple the deleted pairs and keep everything else.

L = alpha L_MD + beta L_MKR + gamma L_UKR, each term in `engine.methods.losses`. The teacher f is
the original; the student f' starts as its copy. Each step is one student pass over a batch of D_f
and a batch of D_r together; the teacher's outputs are computed once and kept. L_MD is the mean over
many unrelated pairs of each deleted one, since few draws are mostly noise: see
`engine.methods.targets`.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.errors import InvalidSpec
from engine.families.base import Encoding, PairModel
from engine.inputs import Inputs
from engine.methods.base import REPEATED, Method, applies_everywhere, methods
from engine.methods.losses import (
    decoupling_loss,
    multimodal_retention_loss,
    similarity_decoupling_loss,
    similarity_retention_loss,
    unimodal_retention_loss,
)
from engine.methods.multidelete_defaults import defaults
from engine.methods.multidelete_params import MultiDeleteParams
from engine.methods.neighbours import drawn, nearest
from engine.methods.selection import ForgettingSelection
from engine.methods.targets import (
    anchored_pairs,
    beside,
    distinct,
    equal_weights,
    indifferent_weights,
    targets,
    unrelated_pairs,
)
from engine.methods.teacher import CHUNK, Teacher
from engine.shares import fused
from engine.training import Schedule
from engine.unlearning import Truths, Unlearning, draw

VALIDATIONS = 10
"""Validations in a run, spread evenly, so that selection costs little beside the steps."""
RETAINED = 8192
"""Most pairs of D_r, and of those forgotten earlier, that a run draws from, unless two epochs take more:
what the teacher must do grows with |D_f| and not with |D|."""
FRESH = 2
"""A run draws from as many pairs of D_r as this many epochs take: what is held again and again is held alone."""


@dataclass(frozen=True)
class Batch:
    """The pairs of one step, as rows.

    Attributes:
        forget: deleted pairs ``(B,)``.
        places: where the teacher's outputs for their unrelated pairs stand ``(B,)``.
        retain: pairs to keep as they are ``(R,)``: retained ones and held-out ones.
        partners: for each item of these, the place in ``retain`` of another text ``(R,)``.
        forgotten: pairs that an earlier run forgot ``(G,)``.
        again: where the teacher's outputs for their unrelated pairs stand ``(G,)``.
    """

    forget: Tensor
    places: Tensor
    retain: Tensor
    partners: Tensor
    forgotten: Tensor
    again: Tensor

    def __len__(self) -> int:
        return len(self.forget) + len(self.retain) + len(self.forgotten)

    @property
    def moved(self) -> Tensor:
        """Where the pairs that may be pushed stand among those of the step ``(B + G,)``."""
        pairs = torch.arange(len(self))
        return torch.cat([pairs[: len(self.forget)], pairs[len(self) - len(self.forgotten) :]])

    @property
    def targets(self) -> Tensor:
        """Where the targets of these stand ``(B + G,)``."""
        return torch.cat([self.places, self.again])


class MultiDelete:
    """The objective of MultiDelete for the training loop.

    It is used within `Inputs.freeze` of the teacher.

    Args:
        run: the unlearning run.
        student: the model to change, a copy of the teacher.
        params: a null in them takes the task's default.
    """

    def __init__(self, run: Unlearning, student: PairModel, params: MultiDeleteParams) -> None:
        if run.aim == "calibrated" and not len(run.validation):
            raise InvalidSpec(
                "the objective calibrated moves deleted pairs to where held-out pairs are, and the "
                "data set has no validation pairs; give it some, or choose the objective decouple"
            )
        self.run, self.student, self.params = run, student, params
        self.weights = defaults(run.task, run.teacher.modality, run.update).given(params)
        self.truths = Truths(run.inputs)
        self.teacher = Teacher(run.teacher, run.inputs, run.monitor.check)
        generator = torch.Generator().manual_seed(run.seed)
        earlier = torch.arange(len(run.forgotten))
        chosen = draw(earlier, self._usable(len(earlier)), generator)
        self.earlier, self.earlier_by = run.forgotten[chosen], run.forgotten_by[chosen]
        self._set_targets(generator)
        self.held, judging = self._held_out(generator)
        self.selection = ForgettingSelection(
            run,
            params.utility_drop,
            self.weights.target,
            generator,
            judging,
            singly=self.weights.singly,
        )
        self.stood = self.selection.stood(self.earlier, run.forgotten_d_f[chosen], self.earlier_by)
        self.retain = draw(run.retain, self._usable(len(run.retain)), generator)
        self._fill()
        if self.weights.neighbours:
            across = run.task.contrastive
            self.near = nearest(self.teacher, run.forget, self.retain, across=across)

    def _held_out(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Cut the validation pairs by their items: those that are held in place, and those that judge.

        What holds on D_r alone may drift elsewhere, and a deleted pair looks to the student more like
        a pair that it never saw than like a retained one. What repeats a deleted pair is not held.
        """
        rows = self.run.validation
        items = self.run.inputs.item_rows[rows, 0]
        known = items.unique()
        chosen = draw(known, len(known) // 2 if self.weights.held_out else 0, generator)
        mine = torch.isin(items, chosen)
        held = rows[mine]
        gone = torch.cat([self.run.forget, self.run.forgotten])
        return held[~_repeats(self.run.inputs, held, gone)], rows[~mine]

    def _fill(self) -> None:
        """Compute at once what frozen parts say of the pairs that steps take.

        Full batches cost less than what each step lacks; and passes of the same size, whenever a run
        goes on, give the same bits.
        """
        rows = torch.cat([self.retain, self.earlier, self.held])
        self.teacher.readouts(rows)
        if self.run.update == "fusion":
            with torch.no_grad():
                for part in torch.cat([self.run.forget, rows]).split(CHUNK):
                    self.run.monitor.check()
                    self.run.inputs.encode(self.student, part)

    def _usable(self, count: int) -> int:
        """Return of how many of ``count`` pairs of one sort to keep what the teacher says: those of all steps."""
        epoch = sum(self._retained_in_steps(len(self.run.forget)))
        return min(count, self.schedule().epochs * epoch, max(RETAINED, FRESH * epoch))

    def _retained_in_steps(self, deleted: int) -> list[int]:
        """Return how many pairs of D_r go into each step of an epoch over ``deleted`` pairs."""
        size, least = self.params.batch_size, self.params.least_retained
        steps = [min(size, deleted - start) for start in range(0, deleted, size)]
        return [max(round(self.weights.retain_ratio * part), least) for part in steps]

    def _set_targets(self, generator: torch.Generator) -> None:
        """Choose K pairs for each deleted pair to end at, and keep what the teacher says of them.

        After those of D_f stand the targets of what was forgotten earlier, and may rise again.
        """
        run, params = self.run, self.params
        # D: what the model may know. Pairs forgotten before are no part of it.
        pool = torch.cat([run.retain, run.forget])
        drawn = unrelated_pairs if params.unrelated == "dataset" else anchored_pairs
        chosen = drawn(self.truths, run.forget, pool, params.draws, generator)
        if len(self.earlier):
            # Of these any item will do: their own ones may be many, and each would be read anew.
            more = unrelated_pairs(self.truths, self.earlier, pool, params.draws, generator)
            chosen = beside(chosen, more, params.draws)
        items, texts, where = distinct(chosen)
        seen = self.teacher.combined(items, texts)
        weights = equal_weights(params.draws, len(run.forget) + len(self.earlier))
        if params.balanced and run.task.labelled:
            weights = indifferent_weights(seen.logits, where, params.draws)
        self.readouts = targets(seen.readout, where, weights)
        if run.task.contrastive:
            self.cosines = targets(self.teacher.cosines(items, texts), where, weights)

    def batches(self, epoch: int, generator: torch.Generator) -> Sequence[Batch]:
        """Cut D_f into batches, each with pairs of D_r that are sampled afresh in every epoch."""
        run, params = self.run, self.params
        self.push = self._push(epoch)
        order = torch.randperm(len(run.forget), generator=generator)
        parts = order.split(params.batch_size)
        sizes = self._retained_in_steps(len(order))
        retain = draw(self.retain, sum(sizes), generator).split(sizes)
        kept = self._earlier(sum(sizes), generator).tensor_split(len(parts))
        made = []
        for part, rows, again in zip(parts, retain, kept, strict=True):
            together = self._with_neighbours(part, rows, generator)
            count = min(round(self.weights.held_out * len(rows)), len(self.held))
            together = torch.cat([together, draw(self.held, count, generator)])
            partners = self._partners(together, generator)
            earlier = self.earlier[again]
            made.append(
                Batch(run.forget[part], part, together, partners, earlier, len(run.forget) + again)
            )
        return made

    def _push(self, epoch: int) -> Tensor:
        """Return how much each deleted pair is pushed in an epoch ``(F,)``, 0 to 1.

        What is forgotten enough is pushed no farther, and under ``decouple`` nothing at the end, so that
        retention heals what the push has cost. It depends on the epoch and the student alone: an
        interrupted run goes on as it would have.
        """
        healing = epoch >= self.schedule().epochs * (1 - self.weights.healing)
        if healing and self.run.aim == "decouple":
            return torch.zeros(len(self.run.forget))
        return self.selection.unfinished(self.student)

    def _earlier(self, most: int, generator: torch.Generator) -> Tensor:
        """Draw pairs of earlier runs for an epoch, as places ``(G,)``, and see how far to push them.

        Retention alone lets them rise, a little in every run: what is pushed next moves all that is
        like it. So those are pushed again that stand higher than their request did when it had ended.
        """
        chosen = draw(torch.arange(len(self.earlier)), min(most, len(self.earlier)), generator)
        push = torch.zeros(len(self.earlier))
        if len(chosen):
            push[chosen] = self.selection.risen(
                self.student, self.earlier[chosen], self.stood[chosen], self.earlier_by[chosen]
            )
        self.push = torch.cat([self.push, push]).to(self.student.device)
        return chosen

    def _with_neighbours(
        self, places: Tensor, retain: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Add to the retained pairs ``(R,)`` of a step some that are near its deleted pairs."""
        if not self.weights.neighbours:
            return retain
        near = drawn(self.near[places], self.weights.neighbours, generator)
        return torch.cat([retain, near[~torch.isin(near, retain)]])

    def _partners(self, retain: Tensor, generator: torch.Generator) -> Tensor:
        """Draw another text of the batch for each item; one that got a true text keeps its own."""
        partners = torch.randperm(len(retain), generator=generator)
        wrong = self.truths.true(retain, retain[partners])
        return torch.where(wrong, torch.arange(len(retain)), partners)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the weighted terms L_MD, L_MKR and, where encoders are trained, L_UKR."""
        rows = torch.cat([batch.forget, batch.retain, batch.forgotten])
        item, text = self.run.inputs.encode(self.student, rows)
        kept = torch.arange(len(batch.forget), len(rows))
        decoupling, retention = self._readout_terms(batch, item, text)
        if self.weights.similarity or self.weights.kept_similarity:
            unit = self.student.project(item, text)
            decoupling = decoupling + self._cosine_decoupling(batch, *unit)
            retention = retention + self._cosine_retention(rows, kept, *unit)
        terms = {
            "decoupling": self.weights.alpha * self._pushed(batch, decoupling),
            "multimodal_retention": self.weights.beta * retention,
        }
        if self.run.update == "all":  # under `fusion` the encoders cannot move
            embeddings = torch.cat([item.pooled, text.pooled], dim=1)[: len(batch.forget)]
            drift = unimodal_retention_loss(embeddings, self.teacher.unimodal(batch.forget))
            terms["unimodal_retention"] = self.weights.gamma * drift
        return terms

    def _pushed(self, batch: Batch, decoupling: Tensor) -> Tensor:
        """Return L_MD of this run's pairs, and beside it that of earlier ones as far as they rose.

        Earlier pairs become many in a long life: those that are pushed together count no more than
        this run's do where these are pushed in full, and each no more than one of these.
        """
        count = len(batch.forget)
        pushed = self.push[batch.targets] * decoupling
        most = self.push[batch.again].sum().clamp(min=count)
        return pushed[:count].mean() + pushed[count:].sum() / most

    def _readout_terms(self, batch: Batch, item: Encoding, text: Encoding) -> tuple[Tensor, Tensor]:
        """L_MD ``(B + G,)`` of each deleted pair and L_MKR on the fused readouts, from one pass of the fusion."""
        deleted, retained = len(batch.forget), len(batch.retain)
        pairs = torch.arange(len(batch))
        items_at, texts_at = pairs, pairs
        if self.weights.mismatched:
            first = pairs[deleted : deleted + retained]
            items_at = torch.cat([pairs, first])
            texts_at = torch.cat([pairs, first[batch.partners]])
        readouts = fused(self.student, item.take(items_at), text.take(texts_at)).readout
        wanted, spread = self.readouts.at(batch.targets)
        decoupling = decoupling_loss(readouts[batch.moved], wanted) + spread
        known = self.teacher.readouts(torch.cat([batch.retain, batch.forgotten]))
        retention = multimodal_retention_loss(readouts[deleted : len(pairs)], known)
        if self.weights.mismatched:
            wrong = self.teacher.combined(batch.retain, batch.retain[batch.partners]).readout
            mismatch = multimodal_retention_loss(readouts[len(pairs) :], wrong)
            retention = retention + self.weights.mismatched * mismatch
        return decoupling, retention

    def _cosine_decoupling(self, batch: Batch, items: Tensor, texts: Tensor) -> Tensor:
        """L_MD on the cosine of each deleted pair; items and texts are unit vectors ``(n, p)``."""
        cosines = (items[batch.moved] * texts[batch.moved]).sum(dim=1)
        wanted, spread = self.cosines.at(batch.targets)
        return self.weights.similarity * (similarity_decoupling_loss(cosines, wanted) + spread)

    def _cosine_retention(self, rows: Tensor, kept: Tensor, items: Tensor, texts: Tensor) -> Tensor:
        """L_MKR on the cosines of every kept item with every kept text."""
        cosines = items[kept] @ texts[kept].T
        return self.weights.kept_similarity * similarity_retention_loss(
            cosines, self.teacher.similarities(rows[kept])
        )

    def validate(self) -> float:
        """Return the selection score of the student; see `ForgettingSelection`."""
        return self.selection.score(self.student)

    def schedule(self) -> Schedule:
        """Return how long to train: passes over D_f, or more of them to reach the least steps."""
        per_epoch = -(-len(self.run.forget) // self.params.batch_size)
        epochs = max(self.weights.epochs, -(-self.weights.least_steps // per_epoch))
        return Schedule(
            epochs=epochs,
            learning_rate=self.weights.learning_rate,
            weight_decay=self.params.weight_decay,
            decay=True,  # the last epochs differ little, so that selection picks less noise
            validate_every=max(1, epochs // VALIDATIONS),
            keep=self.params.keep,
        )


def _repeats(inputs: Inputs, rows: Tensor, others: Tensor) -> Tensor:
    """Return which pairs ``rows`` ``(B,)`` show what one of ``others`` does, items and text."""
    shown = torch.cat([inputs.item_rows, inputs.text_rows[:, None]], dim=1)
    _, numbers = shown.unique(dim=0, return_inverse=True)
    return torch.isin(numbers[rows], numbers[others])


def _run(run: Unlearning) -> PairModel:
    params = run.parameters_as(MultiDeleteParams)
    student = run.student()
    with ExitStack() as stack:
        stack.enter_context(run.inputs.freeze(run.teacher))
        if run.update == "fusion":
            stack.enter_context(run.inputs.freeze(student))
        objective = MultiDelete(run, student, params)
        run.fit(student, objective, objective.schedule())
        run.measured.append(objective.selection.excess(student))
    return student


LIMITATIONS = (
    (
        "The association of each deleted pair is forgotten; what the model knows of the image, "
        "graph or text on its own is kept on purpose."
    ),
    (
        "The method is approximate: measurements support that the pairs are forgotten, and "
        "nothing proves it."
    ),
    (
        "Whoever can train and unlearn models in the same way can tell many deleted pairs from pairs "
        "that were never there, with the aim decouple more than with calibrated; retrain withstands "
        "that. The audit measures it where reference models are asked for."
    ),
    REPEATED,
)

methods.register("multidelete")(
    Method(
        name="multidelete",
        summary="Makes deleted pairs look unrelated to the model and keeps what it knows of each "
        "modality and of all other pairs.",
        guarantee="approximate",
        scopes=frozenset({"association"}),
        params=MultiDeleteParams,
        refusal=applies_everywhere,
        limitations=LIMITATIONS,
        run=_run,
        aims=frozenset({"decouple", "calibrated"}),
    )
)
