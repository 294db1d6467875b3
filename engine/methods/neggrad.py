"""NegGrad (Golatkar et al. 2020, the paper's [24]): gradient ascent of the task's loss on D_f.

    w <- w + eta * grad L(D_f; w)

Mapping: the optimiser and the loop are those of every other method. Ascent never settles, so the
run ends when validations bring nothing better (`patience`), and the epoch is kept that forgot most
without losing utility on validation pairs, as for MultiDelete (`ForgettingSelection`; `rank` says
which where all lost too much). A batch whose loss has reached the ceiling is not climbed further
(`engine.methods.ascent`).
"""

from contextlib import ExitStack

import torch
from pydantic import Field

from engine.families.base import PairModel
from engine.methods.ascent import Ascent, AscentParams, check_usable
from engine.methods.base import REPEATED, Method, applies_everywhere, methods
from engine.methods.selection import ForgettingSelection
from engine.unlearning import Unlearning


class NegGradParams(AscentParams):
    """Length and speed of the ascent, and which epoch of it is kept."""

    patience: int = Field(
        default=5, ge=1, le=1000, description="validations without a better one that end the run"
    )
    utility_drop: float = Field(
        default=1.0,
        ge=0,
        le=100,
        description="points of validation utility that the selected epoch may lose, beside one "
        "standard error of the loss; where all lost more, ten points of D_f above the target weigh as "
        "one of utility",
    )
    target: float = Field(
        default=20.0,
        ge=0,
        le=50,
        description="D_f that is enough: of the epochs that reach it, the most useful is selected",
    )


class NegGrad(Ascent):
    """The objective of NegGrad for the training loop."""

    def __init__(self, run: Unlearning, student: PairModel, params: NegGradParams) -> None:
        super().__init__(run, student, params)
        generator = torch.Generator().manual_seed(run.seed)
        self.selection = ForgettingSelection(run, params.utility_drop, params.target, generator)

    def validate(self) -> float:
        """Return the selection score of the student; see `ForgettingSelection`."""
        return self.selection.score(self.student)


def _run(run: Unlearning) -> PairModel:
    params = run.parameters_as(NegGradParams)
    student = run.student()
    with ExitStack() as stack:
        if run.update == "fusion":
            stack.enter_context(run.inputs.freeze(student))
        objective = NegGrad(run, student, params)
        check_usable(run.fit(student, objective, objective.schedule(params.patience)))
        run.measured.append(objective.selection.excess(student))
    return student


methods.register("neggrad")(
    Method(
        name="neggrad",
        summary="Raises the training loss on the deleted pairs by gradient ascent.",
        guarantee="approximate",
        scopes=frozenset({"association"}),
        params=NegGradParams,
        refusal=applies_everywhere,
        limitations=(
            (
                "Nothing holds what the model knows of retained pairs; only the choice of the epoch "
                "limits what is lost, by a tolerance on validation pairs."
            ),
            (
                "Deleted pairs may end below pairs that were never seen, which itself marks them "
                "as deleted."
            ),
            (
                "A contrastive loss needs other pairs to contrast with: a single deleted pair is "
                "reached through the match head alone, and refused where the model has none."
            ),
            REPEATED,
        ),
        run=_run,
    )
)
