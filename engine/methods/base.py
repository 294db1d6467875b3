"""What a method is: a way to make a model forget, with bounded parameters and stated limits."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

from engine.registry import Registry
from engine.spec import Aim, Update

if TYPE_CHECKING:
    from engine.families.base import PairModel
    from engine.unlearning import Unlearning

Guarantee = Literal["exact", "approximate"]
Scope = Literal["association", "unimodal", "full"]


class MethodParams(BaseModel):
    """Parameters of a method; bounds and descriptions are served by the API."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Method:
    """A registered method.

    Attributes:
        name: as in requests, for example ``multidelete``.
        summary: one sentence for people.
        guarantee: ``exact`` when the result has the distribution of a model that never saw D_f.
        scopes: what of a pair it forgets (its association, each modality on its own, everything).
        params: the class of its parameters.
        refusal: reason why it does not apply to (family, task, update), or None.
        limitations: sentences for the certificate.
        run: makes the unlearned model; the student starts as a copy of the teacher.
        aims: objectives that a request may ask it for.
    """

    name: str
    summary: str
    guarantee: Guarantee
    scopes: frozenset[Scope]
    params: type[MethodParams]
    refusal: Callable[[str, str, Update], str | None]
    limitations: tuple[str, ...]
    run: "Callable[[Unlearning], PairModel]"
    aims: frozenset[Aim] = frozenset({"decouple"})

    def refuse_aim(self, aim: Aim) -> str | None:
        """Return why the method cannot pursue ``aim``, or None when it can."""
        if aim in self.aims:
            return None
        return f"{self.name} cannot aim at {aim}; it can at {' or '.join(sorted(self.aims))}"


methods: Registry[Method] = Registry("methods", Method)

REPEATED = (
    "A retained pair that repeats the item and text of a deleted one keeps their association."
)
"""A limitation of every method that does not start anew: the pair is still in D_r."""


def applies_everywhere(family: str, task: str, update: Update) -> None:
    """Refuse nothing: the `Method.refusal` of a method that knows no family, task or update."""
    del family, task, update
