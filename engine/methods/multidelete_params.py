"""What a request may set of MultiDelete, and what each task has where it sets nothing."""

from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field

from engine.methods.base import MethodParams
from engine.spec import Modality, Update
from engine.tasks import Task


def _weight(meaning: str) -> float | None:
    weight: float | None = Field(default=None, ge=0, le=1000, description=meaning)
    return weight


class MultiDeleteParams(MethodParams):
    """Weights, budget and sampling of MultiDelete; a null takes the task's default."""

    alpha: float | None = _weight("weight of modality decoupling, L_MD")
    beta: float | None = _weight("weight of multimodal knowledge retention, L_MKR")
    gamma: float | None = _weight("weight of unimodal knowledge retention, L_UKR")
    similarity: float | None = _weight("weight of cosines beside readouts in L_MD")
    kept_similarity: float | None = _weight("weight of cosines beside readouts in L_MKR")
    mismatched: float | None = _weight(
        "weight of retained items with wrong texts beside retained pairs in L_MKR"
    )
    learning_rate: float | None = Field(default=None, gt=0, le=1)
    epochs: int | None = Field(default=None, ge=1, le=10_000, description="passes over D_f")
    least_steps: int | None = Field(
        default=None, ge=0, le=100_000, description="steps made even when D_f is small"
    )
    batch_size: int = Field(default=32, ge=1, le=4096, description="deleted pairs in a step")
    retain_ratio: float | None = Field(
        default=None, gt=0, le=100, description="retained pairs in an epoch for each deleted pair"
    )
    neighbours: int | None = Field(
        default=None,
        ge=0,
        le=32,
        description="retained pairs in a step beside the random ones, drawn for each deleted pair "
        "from those nearest to it",
    )
    held_out: float | None = Field(
        default=None,
        ge=0,
        le=10,
        description="validation pairs in a step for each random retained pair that are kept in place "
        "like these; half of them are set aside for it and do not choose the epoch. 0: none",
    )
    least_retained: int = Field(
        default=32, ge=2, le=4096, description="retained pairs in a step even when D_f is small"
    )
    unrelated: Literal["dataset", "anchored"] = Field(
        default="dataset",
        description="any item with any text, or the deleted item with another text",
    )
    balanced: bool = Field(
        default=True,
        description="with labels: whether a deleted pair's unrelated pairs count so that together they "
        "favour no class, or each the same",
    )
    draws: int = Field(
        default=128, ge=1, le=1024, description="unrelated pairs of each deleted pair"
    )
    utility_drop: float = Field(
        default=1.0,
        ge=0,
        le=100,
        description="points of validation utility that the selected epoch may lose, beside one "
        "standard error of the loss",
    )
    target: float | None = Field(
        default=None,
        ge=0,
        le=50,
        description="D_f that is enough: of the epochs that reach it, the most useful is selected",
    )
    weight_decay: float = Field(default=0.0, ge=0, le=1)


@dataclass(frozen=True)
class TaskDefaults:
    """What depends on the task; each field stands in for a null of `MultiDeleteParams`."""

    alpha: float
    beta: float
    gamma: float
    similarity: float
    kept_similarity: float
    mismatched: float
    learning_rate: float
    retain_ratio: float
    neighbours: int
    held_out: float
    epochs: int
    least_steps: int
    target: float

    def given(self, params: MultiDeleteParams) -> "TaskDefaults":
        """Return these defaults with what ``params`` gives in their place."""
        chosen = {name: getattr(params, name) for name in TaskDefaults.__annotations__}
        return replace(self, **{k: value for k, value in chosen.items() if value is not None})


GRAPHS = TaskDefaults(
    alpha=12.0,
    beta=20.0,
    gamma=2.0,
    similarity=0.0,
    kept_similarity=0.0,
    mismatched=0.5,
    learning_rate=1e-3,
    retain_ratio=4.0,
    neighbours=0,
    held_out=1.0,
    epochs=50,
    least_steps=300,
    target=13.0,
)
# Where encoders stand still, steps cost little and the few weights that move must go far.
GRAPHS_BY_FUSION = replace(GRAPHS, alpha=15.0, learning_rate=1e-2, epochs=120, least_steps=600)
# An image has many pairs, and its model says "contradiction" or "false" of nearly every other
# combination: what it says of these is held with more weight, and encoders may move more.
IMAGES = replace(
    GRAPHS,
    alpha=15.0,
    gamma=0.3,
    mismatched=2.0,
    learning_rate=3e-4,
    epochs=6,
    least_steps=600,
    target=25.0,
)
IMAGES_BY_FUSION = replace(IMAGES, learning_rate=1e-3)
# What ranks in retrieval is a similarity: it is decoupled and retained as well. Drawings of the same
# thing with nearly the same words drift with the deleted ones, unless they are held.
RANKING = TaskDefaults(
    alpha=3.0,
    beta=20.0,
    gamma=0.1,
    similarity=1.0,
    kept_similarity=30.0,
    mismatched=1.0,
    learning_rate=3e-4,
    retain_ratio=2.0,
    neighbours=2,
    held_out=1.0,
    epochs=6,
    least_steps=120,
    target=6.0,
)
RANKING_BY_FUSION = replace(RANKING, learning_rate=1e-3)


def defaults(task: Task | type[Task], modality: Modality, update: Update) -> TaskDefaults:
    """Return what stands in for the nulls of the parameters.

    Args:
        task: what the model is trained for.
        modality: of its items.
        update: what may change.
    """
    found = (GRAPHS, GRAPHS_BY_FUSION) if modality == "graph" else (IMAGES, IMAGES_BY_FUSION)
    if task.contrastive:
        found = (RANKING, RANKING_BY_FUSION)
    return found[0] if update == "all" else found[1]
