"""Retrain: train again on D_r from where the original started. Exact, and the yardstick."""

from engine.errors import NotApplicable
from engine.families.base import PairModel
from engine.methods.base import Method, MethodParams, methods
from engine.spec import Update
from engine.training import TaskObjective, recipe_schedule
from engine.unlearning import Unlearning


class RetrainParams(MethodParams):
    """Retrain has no parameters: it repeats the original's recipe."""


def _refusal(family: str, task: str, update: Update) -> str | None:
    del family, task
    if update == "fusion":
        return (
            "retrain trains the whole model from its initial weights, so it cannot update the "
            "fusion module alone; use update = all"
        )
    return None


def _run(run: Unlearning) -> PairModel:
    run.parameters_as(RetrainParams)
    if run.recipe is None:
        raise NotApplicable(
            "retrain repeats the original's training, and the checkpoint's card names no recipe; "
            "register the original with its recipe, or choose another method"
        )
    # The tokenizer too is made without the forgotten pairs: it would remember their words.
    student, inputs = run.fresh()
    student.set_trainable("all")
    objective = TaskObjective(
        run.task, student, inputs, run.retain, run.validation, run.recipe.batch_size
    )
    run.fit(student, objective, recipe_schedule(run.recipe))
    return student


methods.register("retrain")(
    Method(
        name="retrain",
        summary="Trains a new model on the retained pairs with the recipe of the original.",
        guarantee="exact",
        scopes=frozenset({"association", "unimodal", "full"}),
        params=RetrainParams,
        refusal=_refusal,
        limitations=(
            (
                "Exact for what this training saw: pretrained weights that the original started "
                "from are not examined for the deleted pairs."
            ),
            "What other retained pairs say of the same image, graph or text is learned again.",
        ),
        run=_run,
        aims=frozenset({"decouple", "calibrated"}),
    )
)
