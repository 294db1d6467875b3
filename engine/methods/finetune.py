"""FineTune: go on training on D_r with a larger learning rate, so that D_f is overwritten."""

from contextlib import ExitStack

from pydantic import Field

from engine.families.base import PairModel
from engine.methods.base import REPEATED, Method, MethodParams, applies_everywhere, methods
from engine.tasks.base import TrainingRecipe
from engine.training import Schedule, TaskObjective
from engine.unlearning import Unlearning


class FineTuneParams(MethodParams):
    """Length and speed of the further training."""

    epochs: int = Field(default=5, ge=1, le=1000, description="passes over D_r")
    rate_factor: float = Field(
        default=2.0, gt=0, le=1000, description="times the learning rate of the original"
    )
    learning_rate: float | None = Field(
        default=None, gt=0, le=1, description="instead of the factor times the original's"
    )
    batch_size: int = Field(default=64, ge=2, le=4096, description="retained pairs in a step")
    weight_decay: float = Field(default=0.01, ge=0, le=1, description="of matrices")


def _schedule(params: FineTuneParams, recipe: TrainingRecipe) -> Schedule:
    rate = params.learning_rate or params.rate_factor * recipe.learning_rate
    return Schedule(
        epochs=params.epochs,
        learning_rate=rate,
        weight_decay=params.weight_decay,
        warmup=0.05,
        dropout=True,
    )


def _run(run: Unlearning) -> PairModel:
    params = run.parameters_as(FineTuneParams)
    student = run.student()
    recipe = run.recipe or run.task.recipe()
    objective = TaskObjective(
        run.task, student, run.inputs, run.retain, run.validation, params.batch_size
    )
    with ExitStack() as stack:
        if run.update == "fusion":
            stack.enter_context(run.inputs.freeze(student))
        run.fit(student, objective, _schedule(params, recipe))
    return student


methods.register("finetune")(
    Method(
        name="finetune",
        summary="Continues training on the retained pairs with a larger learning rate.",
        guarantee="approximate",
        scopes=frozenset({"association"}),
        params=FineTuneParams,
        refusal=applies_everywhere,
        limitations=(
            (
                "Nothing pushes the deleted pairs out: they fade as far as further training on "
                "other pairs overwrites them, which is often little."
            ),
            REPEATED,
        ),
        run=_run,
    )
)
