"""UL, knowledge unlearning (Jang et al. 2023, the paper's [29]): ascent on the text side.

A language model forgets sequences by gradient ascent of its loss on them, until they look like text
that it never saw: until their score is no higher than the average of a validation set under the
original (Jang et al., section 3: the forgetting thresholds).

Mapping: the loss of a sequence is the task's loss on D_f; the language model is the text encoder,
so that ``all`` trains the text parameters alone, and ``fusion`` (the paper's UL-F) the fusion
module and head. The score is the pair score, and the threshold its mean over validation pairs under
the teacher. Without validation pairs, or when the threshold is not reached, the epoch budget ends
the run, and the epoch with the lowest mean score of D_f is kept.
"""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from engine.errors import InvalidSpec, NotApplicable
from engine.families.base import PairModel
from engine.methods.ascent import Ascent, AscentParams, check_usable
from engine.methods.base import REPEATED, Method, applies_everywhere, methods
from engine.unlearning import Unlearning, draw

SAMPLE = 512
"""Most deleted and most validation pairs whose mean scores are compared."""
REACHED = 1.0
"""Validation score of the epoch that reached the threshold: above that of every other epoch."""


class ULParams(AscentParams):
    """Length and speed of the ascent."""

    # Longer than NegGrad's: the threshold ends the run, and the text side alone is slow to reach it.
    epochs: int = Field(default=60, ge=1, le=10_000, description="most passes over D_f")


class KnowledgeUnlearning(Ascent):
    """The objective of UL for the training loop.

    Attributes:
        threshold: mean score of validation pairs under the teacher; -inf when there is none.
        gap: mean score of D_f above the threshold at the last validation, or None before the first.

    Raises:
        InvalidSpec: the aim is ``calibrated``, and there are no validation pairs.
    """

    def __init__(self, run: Unlearning, student: PairModel, params: AscentParams) -> None:
        super().__init__(run, student, params)
        generator = torch.Generator().manual_seed(run.seed)
        self.deleted = draw(run.forget, min(SAMPLE, len(run.forget)), generator)
        unseen = draw(run.validation, min(SAMPLE, len(run.validation)), generator)
        self.threshold = float("-inf")
        if run.aim == "calibrated" and not len(unseen):
            raise InvalidSpec(
                "the objective calibrated needs validation pairs, which say where unseen pairs "
                "stand, and the data set has none; give it some, or choose the objective decouple"
            )
        if len(unseen):
            # The student is still a copy of the teacher.
            self.threshold = float(self.scores(unseen).mean())
        self.gap: float | None = None

    def batches(self, epoch: int, generator: torch.Generator) -> Sequence[Tensor]:
        """Cut D_f; once the threshold is reached there is nothing left to do."""
        if epoch and self.gap is None:
            self.validate()  # a resumed run has to learn where it stands
        if self.gap is not None and self.gap <= 0:
            return []
        return super().batches(epoch, generator)

    def validate(self) -> float:
        """Return `REACHED`, or else the mean score of D_f with its sign turned."""
        mean = float(self.scores(self.deleted).mean())
        if math.isnan(mean):
            return float("-inf")
        self.gap = mean - self.threshold
        if self.gap <= 0:
            return REACHED
        return -mean


def _train_text_alone(student: PairModel) -> None:
    for part, named in student.parts().items():
        if part != "text":
            for _, parameter in named:
                parameter.requires_grad = False
    if not any(parameter.requires_grad for parameter in student.parameters()):
        raise NotApplicable(
            "ul changes the text encoder, and this model trains none; use update = fusion"
        )


def _run(run: Unlearning) -> PairModel:
    params = run.parameters_as(ULParams)
    student = run.student()
    with ExitStack() as stack:
        if run.update == "fusion":
            stack.enter_context(run.inputs.freeze(student))
        else:
            _train_text_alone(student)
        objective = KnowledgeUnlearning(run, student, params)
        # Every epoch is validated, so that a resumed run stands where the first one stood.
        schedule = replace(objective.schedule(), validate_every=1)
        check_usable(run.fit(student, objective, schedule))
    return student


methods.register("ul")(
    Method(
        name="ul",
        summary="Raises the training loss on the deleted pairs through the text side until they "
        "look like pairs that were never seen.",
        guarantee="approximate",
        scopes=frozenset({"association"}),
        params=ULParams,
        refusal=applies_everywhere,
        limitations=(
            (
                "Only the text side changes: what the image or graph encoder knows of the deleted "
                "pairs stays."
            ),
            "Nothing holds what the model knows of retained pairs.",
            (
                "The run stops when the deleted pairs score like unseen ones on average; single "
                "pairs may still score higher or lower. Both objectives end it there, with the same "
                "model."
            ),
            REPEATED,
        ),
        run=_run,
        # Where it stops is where unseen pairs stand.
        aims=frozenset({"decouple", "calibrated"}),
    )
)
