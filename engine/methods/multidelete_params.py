"""What a request may set of MultiDelete; `multidelete_defaults` has what stands in for nulls."""

from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field

from engine.methods.base import MethodParams
from engine.spec import Keep


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
        "standard error of the loss; where all lost more, ten points of D_f above the target, or of "
        "AUC away from 0.5, weigh as one of utility",
    )
    target: float | None = Field(
        default=None,
        ge=0,
        le=50,
        description="D_f that is enough: of the epochs that reach it, the most useful is selected",
    )
    singly: bool | None = Field(
        default=None,
        description="whether under decouple each deleted pair is pushed until it stands above no more than "
        "`target` percent of all retained pairs itself, so that D_f ends below, or all pairs of its label until "
        "their D_f is at the target",
    )
    healing: float | None = Field(
        default=None,
        ge=0,
        le=0.9,
        description="share of the passes over D_f, at the end, in which none of it is pushed under "
        "decouple, so that retention heals what the push has cost",
    )
    keep: Keep = Field(
        default="best",
        description="the epoch that served best, see `utility_drop` and `target`, or the last one, whatever "
        "it has forgotten and cost",
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
    singly: bool
    healing: float

    def given(self, params: MultiDeleteParams) -> "TaskDefaults":
        """Return these defaults with what ``params`` gives in their place."""
        chosen = {name: getattr(params, name) for name in TaskDefaults.__annotations__}
        return replace(self, **{k: value for k, value in chosen.items() if value is not None})
