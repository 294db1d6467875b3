"""What an unlearning method gets to work with: the original, the pairs to forget, the one loop."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from engine.errors import InvalidSpec
from engine.monitor import Monitor
from engine.spec import Aim, Metric, Update
from engine.training import BatchT, FitReport, Objective, Schedule, fit

if TYPE_CHECKING:
    from engine.families.base import PairModel
    from engine.inputs import Inputs
    from engine.methods.base import MethodParams
    from engine.tasks.base import Task, TrainingRecipe

ParamsT = TypeVar("ParamsT", bound="MethodParams")


@dataclass
class Unlearning:
    """One unlearning run, as a method sees it. Rows are indices into ``inputs``.

    Attributes:
        teacher: the original f: frozen, in evaluation mode.
        task: what the model is trained for.
        inputs: the prepared pairs, in the teacher's tokens.
        forget: D_f, training pairs ``(F,)`` to forget now.
        retain: D_r, training pairs ``(R,)``; nothing that was ever forgotten is in it.
        forgotten: training pairs ``(G,)`` that ancestors of the teacher forgot.
        forgotten_by: the number of the request that named each of these first ``(G,)``.
        forgotten_d_f: D_f of that request by its own audit ``(G,)``; NaN where the checkpoint tells none.
        validation: validation pairs ``(V,)``, for model selection.
        params: the method's parameters.
        update: ``all``, or ``fusion`` for the fusion module and head alone.
        aim: ``decouple``, or ``calibrated`` to the pairs that were never seen.
        recipe: how the original was trained, or None when its checkpoint does not say.
        seed: of every random choice.
        monitor: progress, cancellation, saved state.
        fresh: makes an untrained model of the same family, configuration and seed, and inputs in
            its tokens, from a data set without any forgotten pair.
        reports: what each call of `fit` took; the run's cost is made of them.
        measured: what the method itself has to say of its result, for the audit.
    """

    teacher: "PairModel"
    task: "Task"
    inputs: "Inputs"
    forget: Tensor
    retain: Tensor
    forgotten: Tensor
    forgotten_by: Tensor
    forgotten_d_f: Tensor
    validation: Tensor
    params: "MethodParams"
    update: Update
    aim: Aim
    recipe: "TrainingRecipe | None"
    seed: int
    monitor: Monitor
    fresh: "Callable[[], tuple[PairModel, Inputs]]"
    reports: list[FitReport] = field(default_factory=list)
    measured: list[Metric] = field(default_factory=list)

    def parameters_as(self, kind: type[ParamsT]) -> ParamsT:
        """Return the parameters, which must be of the method's own class.

        Raises:
            InvalidSpec: they belong to another method.
        """
        if not isinstance(self.params, kind):
            raise InvalidSpec(
                f"the method needs {kind.__name__}, and {type(self.params).__name__} came"
            )
        return self.params

    def student(self) -> "PairModel":
        """Return a copy of the teacher in which only what ``update`` selects can change."""
        student = self.teacher.clone()
        student.set_trainable(self.update)
        return student

    def fit(
        self,
        model: nn.Module,
        objective: Objective[BatchT],
        schedule: Schedule,
        *,
        phase: str = "unlearn",
    ) -> FitReport:
        """Run the one optimisation loop for this method; see `engine.training.fit`.

        A method that trains more than once gives each training a ``phase`` of its own, under which
        its state is saved.
        """
        report = fit(model, objective, schedule, phase=phase, seed=self.seed, monitor=self.monitor)
        self.reports.append(report)
        return report


class Truths:
    """Which (item, text) combinations are true pairs of a data set.

    A combination is true when any pair of the data set, in whatever split, shows one of the items
    with the same text: by text id or word for word.
    """

    def __init__(self, inputs: "Inputs") -> None:
        pairs = inputs.pairs
        self._words = inputs.text_rows
        self._names = _numbers([pair.text_id for pair in pairs])
        # An item is known by its reference and by its id: the same image may stand under two.
        references = inputs.item_rows
        ids = _numbers([name for pair in pairs for name in pair.item_ids]).view(len(pairs), -1)
        self._items = torch.cat([references, ids + inputs.items], dim=1)
        self._by_words = self._keys(self._items, self._words).unique()
        self._by_names = self._keys(self._items, self._names).unique()

    def true(self, items_of: Tensor, texts_of: Tensor) -> Tensor:
        """Return for each of B combinations whether it is a true pair, ``(B,)`` booleans.

        Args:
            items_of: rows ``(B,)`` of the pairs that give the items.
            texts_of: rows ``(B,)`` of the pairs that give the texts.
        """
        items = self._items[items_of]
        by_words = torch.isin(self._keys(items, self._words[texts_of]), self._by_words)
        by_names = torch.isin(self._keys(items, self._names[texts_of]), self._by_names)
        return (by_words | by_names).view(len(items_of), -1).any(dim=1)

    @staticmethod
    def _keys(items: Tensor, texts: Tensor) -> Tensor:
        # (N, k) item numbers and (N,) text numbers, both below 2^31, to N * k distinct numbers.
        return (items * 2**31 + texts[:, None]).flatten()


def _numbers(names: list[str]) -> Tensor:
    known: dict[str, int] = {}
    return torch.tensor([known.setdefault(name, len(known)) for name in names])


def unrelated_texts(
    truths: Truths, items_of: Tensor, pool: Tensor, generator: torch.Generator
) -> Tensor:
    """Draw for the item of each pair a pair of ``pool`` whose text does not belong with it.

    Args:
        truths: the true combinations.
        items_of: rows ``(B,)`` of the pairs that give the items.
        pool: rows ``(P,)`` of the pairs that may give the texts.
        generator: of the draws.

    Returns:
        Rows ``(B,)`` from ``pool``.

    Raises:
        InvalidSpec: no unrelated text was found for an item in 100 draws.
    """
    chosen = draw(pool, len(items_of), generator)
    for _ in range(100):
        wrong = truths.true(items_of, chosen).nonzero().flatten()
        if not len(wrong):
            return chosen
        chosen[wrong] = draw(pool, len(wrong), generator)
    raise InvalidSpec(
        f"{len(wrong)} pairs have no unrelated text among {len(pool)} pairs: the data set needs "
        "more than one text that does not belong with each item"
    )


def draw(pool: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw ``count`` entries of ``pool`` ``(P,)``: each once before any comes twice.

    From an empty pool nothing is drawn.
    """
    if not len(pool):
        return pool
    rounds = -(-count // len(pool))
    order = [torch.randperm(len(pool), generator=generator) for _ in range(rounds)]
    return pool[torch.cat(order)[:count]] if order else pool[:0]
