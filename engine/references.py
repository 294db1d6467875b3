"""Reference models, on demand: how the audited procedure treats pairs that it learned, or never saw.

An attack on each pair (`engine.metrics.ulira`) needs to know how the score of that very pair is
distributed when it was learned, or learned and unlearned, and when it never was there. So K models
are made by the recipe of the original, each on all of D with half of the attacked pairs exchanged
for held-out ones, and then unlearned by the method under audit:

| attacked pairs | learned by the original | by each reference | then |
|---|---|---|---|
| D_f | yes | half of them | forgotten again |
| as many test pairs | no | half of them | forgotten again |
| some of D_r | yes | half of them | retained |
| as many other test pairs | no | half of them | retained |

A reference therefore learns about |D| pairs and forgets about |D_f|. It costs a training and an
unlearning. What ancestors of the original forgot is left out everywhere.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.audit import CHUNK, View
from engine.data.pairs import PairDataset
from engine.families.base import PairModel
from engine.inputs import Inputs
from engine.methods.base import Method
from engine.metrics.base import Floats, ReferenceScores
from engine.processes import agree, is_main
from engine.reference_state import Both, monitor_of, read_scores, write_scores
from engine.shares import dividing
from engine.tasks.base import TrainingRecipe
from engine.training import TaskObjective, epoch_seed, fit, recipe_schedule
from engine.unlearning import Unlearning, draw

LEAST_UNSEEN = 20
"""Test pairs of each group: fewer say nothing."""
MOST_RETAINED = 1000
"""Retained pairs that are attacked, and as many test pairs."""

NO_RECIPE = (
    "reference models repeat the original's training, and its checkpoint names no recipe; "
    "register the original with its recipe"
)


@dataclass(frozen=True)
class Group:
    """Pairs that are attacked.

    Attributes:
        rows: which pairs ``(n,)``.
        member: whether the original learned them ``(n,)``.
        inside: whether each of the K reference models does ``(K, n)``.
    """

    rows: Tensor
    member: NDArray[np.bool_]
    inside: NDArray[np.bool_]

    def learned_by(self, number: int) -> Tensor:
        """Return the rows that one reference model learns."""
        return self.rows[torch.from_numpy(self.inside[number])]


@dataclass(frozen=True)
class Procedure:
    """What is repeated for each reference model.

    Attributes:
        context: the unlearning under audit.
        method: its method.
        dataset: all pairs.
        build: makes an untrained model like the original from a data set and a seed.
        test: rows of the test split, which nothing selects by.
        count: K, four at least.
    """

    context: Unlearning
    method: Method
    dataset: PairDataset
    build: Callable[[PairDataset, int], PairModel]
    test: Tensor
    count: int


def with_references(
    views: tuple[View, View], procedure: Procedure, student: PairModel, inputs: Inputs
) -> tuple[View, View]:
    """Return the views before and after with what K reference models say of the attacked pairs.

    With a state folder each reference is kept as soon as it is done, and one that was interrupted
    goes on after its last saved epoch. Their progress has the phases ``reference-0``,
    ``reference-0-unlearn``, and so on.

    Args:
        views: of the original and of the unlearned model.
        procedure: how the references are made.
        student: the unlearned model.
        inputs: the pairs in the student's tokens.

    Raises:
        NonFiniteLoss: the training of a reference diverged.
        Cancelled: the caller wants the run to stop.
        StorageFull: the state folder has no room.
    """
    context = procedure.context
    if context.recipe is None:
        return replace(views[0], references=NO_RECIPE), replace(views[1], references=NO_RECIPE)
    groups = choose_groups(context, procedure.test, procedure.count)
    if isinstance(groups, str):
        return replace(views[0], references=groups), replace(views[1], references=groups)
    rows = torch.cat([group.rows for group in groups.values()])
    made = [
        _Reference(procedure, groups, rows, number).scores(context.recipe)
        for number in range(procedure.count)
    ]
    target = (
        _scores(context, context.teacher, context.inputs, rows),
        _scores(context, student, inputs, rows),
    )
    before, after = (
        _by_group(context, groups, target[moment], np.stack([one[moment] for one in made]))
        for moment in (0, 1)
    )
    return replace(views[0], references=before), replace(views[1], references=after)


def choose_groups(context: Unlearning, test: Tensor, count: int) -> dict[str, Group] | str:
    """Choose the attacked pairs, and which of ``count`` reference models learn each of them.

    Returns:
        The groups ``forget`` and ``retained``, or the reason why there are too few pairs.
    """
    generator = torch.Generator().manual_seed(context.seed)
    unseen = draw(test, len(test), generator)
    first = min(len(test) // 2, max(len(context.forget), LEAST_UNSEEN))
    second = min(len(test) - first, len(context.retain) // 2, MOST_RETAINED)
    if min(first, second) < LEAST_UNSEEN:
        return (
            f"needs at least {2 * LEAST_UNSEEN} test pairs and as many retained ones; "
            f"{len(test)} and {len(context.retain)} came"
        )
    retained = draw(context.retain, second, generator)
    random = np.random.default_rng([context.seed, 14])
    return {
        "forget": _group(context.forget, unseen[:first], count, random),
        "retained": _group(retained, unseen[first : first + second], count, random),
    }


def _group(members: Tensor, others: Tensor, count: int, random: np.random.Generator) -> Group:
    rows = torch.cat([members, others])
    # The same number of models on both sides of each pair: a draw of half of the K for each.
    order = random.random((count, len(rows))).argsort(axis=0)
    return Group(rows, np.arange(len(rows)) < len(members), order < count // 2)


def _by_group(
    context: Unlearning, groups: dict[str, Group], target: Floats, references: Floats
) -> dict[str, ReferenceScores]:
    """Cut scores ``(n,)`` and ``(K, n)`` into the groups, which follow one another."""
    found, start = {}, 0
    for name, group in groups.items():
        part = slice(start, start + len(group.rows))
        labels = context.inputs.labels[group.rows].numpy() if context.task.labelled else None
        found[name] = ReferenceScores(
            target[part], references[:, part], group.inside, group.member, labels
        )
        start = part.stop
    return found


class _Reference:
    """One reference model.

    Args:
        procedure: how it is made.
        groups: the attacked pairs.
        rows: all of their rows ``(n,)``.
        number: which of the K it is.
    """

    def __init__(
        self, procedure: Procedure, groups: dict[str, Group], rows: Tensor, number: int
    ) -> None:
        name, context = f"reference-{number}", procedure.context
        self.procedure = procedure
        self.rows = rows
        self.forget = groups["forget"].learned_by(number)
        always = context.retain[~torch.isin(context.retain, rows)]
        self.retain = torch.cat([always, groups["retained"].learned_by(number)]).sort().values
        self.seed = epoch_seed(context.seed, name, 0) % 2**31
        self.monitor = monitor_of(context.monitor, name)
        self.state = self.monitor.state

    def scores(self, recipe: TrainingRecipe) -> Both:
        """Return its scores of ``rows`` before and after unlearning, kept from an earlier attempt."""
        if self.state is None:
            return self._scores(recipe)
        file, fingerprint = self.state.with_suffix(".json"), self.monitor.fingerprint
        found = read_scores(file, fingerprint)
        agree(0 if found is None else len(found[0]), "scores", file)
        if found is None:
            found = self._scores(recipe)
            if is_main():
                write_scores(file, fingerprint, found)
                shutil.rmtree(self.state, ignore_errors=True)
        return found

    def _scores(self, recipe: TrainingRecipe) -> Both:
        context = self._trained(recipe)
        before = _scores(context, context.teacher, context.inputs, self.rows)
        student, inputs = _unlearned(self.procedure.method, context)
        return before, _scores(context, student, inputs, self.rows)

    def _trained(self, recipe: TrainingRecipe) -> Unlearning:
        """Train the model, and return the unlearning that comes next."""
        given = self.procedure.context
        learned = torch.cat([self.retain, self.forget]).sort().values
        model, inputs = self._fresh(learned)
        model.set_trainable("all")
        objective = TaskObjective(
            given.task, model, inputs, learned, given.validation, recipe.batch_size
        )
        schedule = recipe_schedule(recipe)
        fit(model, objective, schedule, phase="train", seed=self.seed, monitor=self.monitor)
        return replace(
            given,
            teacher=model.requires_grad_(False),  # noqa: FBT003
            inputs=inputs,
            forget=self.forget,
            retain=self.retain,
            forgotten=given.forgotten[:0],
            forgotten_by=given.forgotten_by[:0],
            forgotten_d_f=given.forgotten_d_f[:0],
            seed=self.seed,
            monitor=self.monitor,
            fresh=lambda: self._fresh(self.retain),
            reports=[],
            measured=[],
        )

    def _fresh(self, known: Tensor) -> tuple[PairModel, Inputs]:
        dataset = self.procedure.dataset
        built = self.procedure.build(_with_training(dataset, known, self.rows), self.seed)
        return built, Inputs(built, dataset)


def _unlearned(method: Method, context: Unlearning) -> tuple[PairModel, Inputs]:
    """Return the student and the pairs in its tokens: its teacher's, or those it was made with."""
    prepared = {context.teacher: context.inputs}

    def fresh() -> tuple[PairModel, Inputs]:
        model, inputs = context.fresh()
        prepared[model] = inputs
        return model, inputs

    with context.inputs.freeze(context.teacher):
        student = method.run(replace(context, fresh=fresh))
    return student, prepared.get(student, context.inputs)


def _with_training(dataset: PairDataset, learned: Tensor, attacked: Tensor) -> PairDataset:
    """Return the data set as if ``learned`` were the training pairs, without other attacked ones."""
    inside, gone = set(learned.tolist()), set(attacked.tolist()) - set(learned.tolist())
    pairs = [
        replace(pair, split="train") if row in inside else pair
        for row, pair in enumerate(dataset.pairs)
        if row in inside or (row not in gone and pair.split != "train")
    ]
    return replace(dataset, pairs=pairs)


def _scores(context: Unlearning, model: PairModel, inputs: Inputs, rows: Tensor) -> Floats:
    """Return the pair scores ``(n,)`` of ``rows`` ``(n,)``."""
    model.eval()
    parts = []
    with torch.no_grad(), dividing(), inputs.freeze(model):
        for part in rows.split(CHUNK):
            context.monitor.check()
            parts.append(context.task.scores(model, inputs, part).double().cpu())
    found: Floats = torch.cat(parts).numpy()
    return found
