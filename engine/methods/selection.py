"""Which epoch of an unlearning run is kept: the one nearest to its aim without losing utility."""

import math
from typing import TYPE_CHECKING

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from engine.spec import Metric
from engine.tasks.base import mean_of_groups
from engine.unlearning import Unlearning, draw

if TYPE_CHECKING:
    from engine.families.base import PairModel

SAMPLE = 512
"""Most deleted and most other pairs whose scores are compared at each validation."""
FADING = 4.0
"""Points of D_f below the target, to 0 at the lowest, over which the push on deleted pairs fades under `decouple`."""
BALANCING = 6.0
"""Points of AUC above what counts as 0.5 over which it fades under ``calibrated``; no pair is pushed that
scores as those do that were never seen, since one that scores lower is marked by its absence."""
RISING = 4.0
"""Points of D_f above that of their own audit at which pairs of an earlier request are pushed again in full."""
TOGETHER = 20
"""Pairs of an earlier request whose mean can tell that they rose. Those of which fewer are looked at, as few are of
each once there are many, are taken together."""
EXCHANGE = 10.0
"""Points of D_f above the target, or of AUC away from 0.5, that weigh as much as a point of utility where every
epoch lost too much: the least loss alone would choose the one that forgot least."""
MOST_CHANCE = 0.05
"""Standard error of an AUC that is granted at most."""


class ForgettingSelection:
    """Scores a student on validation utility and on where the deleted pairs stand.

    Utility is measured on validation pairs; forgetting on training pairs (``decouple``) or between
    training and validation pairs (``calibrated``): never on test.

    Args:
        run: the unlearning run; its aim says what is wanted of the deleted pairs.
        tolerance: points of 100 of validation utility that may be lost, beside what chance explains.
        target: D_f at which deleted pairs look unrelated enough; beyond it utility decides.
        generator: draws the pairs that are compared.
        judging: validation pairs ``(J,)`` that utility is measured on; None: all.
        singly: whether under ``decouple`` each deleted pair is pushed by where it stands itself.
    """

    def __init__(
        self,
        run: Unlearning,
        tolerance: float,
        target: float,
        generator: torch.Generator,
        judging: Tensor | None = None,
        singly: bool = False,
    ) -> None:
        self.run = run
        self.singly = singly
        self.judging = run.validation if judging is None else judging
        self.tolerance = tolerance
        self.target = target
        self.deleted = draw(run.forget, min(SAMPLE, len(run.forget)), generator)
        self.retained = draw(run.retain, min(SAMPLE, len(run.retain)), generator)
        self.before = self._trials(run.teacher)
        self.chance = chance_of_auc(len(run.forget), len(run.validation))

    def score(self, student: "PairModel") -> float:
        """Return how good the student is; higher is better. See `rank` and `rank_calibrated`.

        One that gives no finite scores is the worst: an earlier epoch may be the result.
        """
        lost, chance = self._lost(student)
        tolerance = self.tolerance + chance
        calibrated = self.run.aim == "calibrated"
        found = self.distance(student) if calibrated else self._forgetting(student)
        if not math.isfinite(lost + found):
            return -math.inf
        if calibrated:
            return rank_calibrated(lost, found, tolerance)
        return rank(lost, found, tolerance, self.target)

    def excess(self, student: "PairModel") -> Metric:
        """Return how many points the epoch that was kept lost beyond what may be lost.

        Above 0, every epoch that could be kept lost more than may be.
        """
        lost, chance = self._lost(student)
        measured = max((len(group) for group in self.before), default=0)
        return excess_metric(lost, self.tolerance, chance, measured)

    def unfinished(self, student: "PairModel") -> Tensor:
        """Return for each deleted pair how much it is still to be pushed ``(F,)``, 0 to 1.

        It is what its kind needs, or under ``decouple`` what it needs itself, where that was asked for. Pairs
        of a kind have one label, where the task has labels: else those that are forgotten most
        easily would pay for the others. See `FADING` and `BALANCING` for where the push
        fades; to a target of 0 it never does.
        """
        run = self.run
        if run.aim == "decouple" and self.target <= 0:
            return torch.ones(len(run.forget))
        high, low = self.target, max(self.target - FADING, 0.0)  # at 0 nothing is left to push
        if run.aim == "decouple" and self.singly:
            return ((self.standing(student, run.forget) - low) / (high - low)).clamp(0.0, 1.0)
        rows, others = self.deleted, self.retained
        if run.aim == "calibrated":
            low = 100.0 * (0.5 + self.chance)
            rows, others, high = run.forget, run.validation, low + BALANCING
        known, other = self._scores(student, rows), self._scores(student, others)
        kinds = run.inputs.labels if run.task.labelled else torch.zeros_like(run.inputs.labels)
        found = torch.zeros(len(run.forget))
        for kind in kinds[run.forget].unique():
            mine, theirs = kinds[rows] == kind, kinds[others] == kind
            # A kind of which a sample has no pair is compared as all pairs together are.
            auc = _auc(
                known[mine] if mine.any() else known, other[theirs] if theirs.any() else other
            )
            found[kinds[run.forget] == kind] = (100.0 * auc - low) / (high - low)
        return found.clamp(0.0, 1.0)

    def stood(self, rows: Tensor, d_f: Tensor, requests: Tensor) -> Tensor:
        """Return where the requests of earlier pairs ended ``(G,)``: `risen` pushes what rose above it.

        Where no audit told it, as of a checkpoint from elsewhere, it is where they stand in the teacher.
        """
        if not d_f.isnan().any():
            return d_f
        now = self.standing(self.run.teacher, rows)
        for mine in _together(requests):
            now[mine] = now[mine].mean()
        return torch.where(d_f.isnan(), now, d_f)

    def standing(self, model: "PairModel", rows: Tensor) -> Tensor:
        """Return of how many percent of the retained pairs each pair ``(G,)`` scores above, 0 to 100."""
        return self._above(model, self._scores(model, rows)) if len(rows) else torch.zeros(0)

    def _above(self, model: "PairModel", scores: Tensor) -> Tensor:
        """Return of how many percent of the retained pairs each score ``(G,)`` is above, 0 to 100."""
        known = self._scores(model, self.retained).sort().values
        below = torch.searchsorted(known, scores) + torch.searchsorted(known, scores, right=True)
        return (50.0 * below / len(known)).float()  # a tie counts half

    def risen(self, student: "PairModel", rows: Tensor, d_f: Tensor, requests: Tensor) -> Tensor:
        """Return for each pair of an earlier run how much it is to be pushed again ``(G,)``, 0 to 1.

        Those of a request are pushed as far as together they stand above the D_f that its own audit
        told, and of these only the ones that do themselves: any run moves each of them a little, and what
        stands low enough would be marked by another push, at the cost of utility. Under ``calibrated``
        none is pushed once those of its request score as pairs do that were never seen.

        Args:
            student: the model now.
            rows: the pairs ``(G,)``.
            d_f: where their requests ended ``(G,)``, in percent of the retained pairs below.
            requests: the number of the request of each ``(G,)``.
        """
        scores = self._scores(student, rows)
        rise = self._above(student, scores) - d_f
        push = torch.zeros(len(rows))
        groups = _together(requests)
        for mine in groups:
            needed = _share(float(rise[mine].mean()) / RISING)
            push[mine] = needed * (rise[mine] > 0).float()
        if self.run.aim == "calibrated" and push.any():
            unseen = self._scores(student, self.run.validation)
            for mine in groups:
                above = _auc(scores[mine], unseen) - 0.5
                chance = chance_of_auc(int(mine.sum()), len(unseen))
                push[mine] *= _share(100.0 * (above - chance) / BALANCING)
        return push

    def distance(self, student: "PairModel") -> float:
        """Return how far the AUC of deleted against validation pairs is from 0.5, 0 to 0.5.

        A standard error is no distance: so few pairs cannot tell it, and utility decides.
        """
        beyond = abs(self.unseen_auc(student) - 0.5) - self.chance
        return 0.0 if beyond < 0 else beyond  # NaN stays NaN

    def unseen_auc(self, student: "PairModel") -> float:
        """Return the AUC of deleted pairs, the positives, against validation pairs."""
        run = self.run
        return _auc(self._scores(student, run.forget), self._scores(student, run.validation))

    def _lost(self, student: "PairModel") -> tuple[float, float]:
        """Return the points of validation utility that were lost, and their standard error.

        A loss within one standard error of the tolerance counts as tolerated, as in the rule of
        Breiman et al. (CART, 1984): a few hundred validation pairs are too few to tell a point.
        """
        losses = [
            before - after for before, after in zip(self.before, self._trials(student), strict=True)
        ]
        if not losses:
            return 0.0, 0.0
        variances = [group.var(correction=0) / len(group) for group in losses]
        return float(mean_of_groups(losses)), float(
            torch.stack(variances).sum().sqrt() / len(losses)
        )

    def _trials(self, model: "PairModel") -> tuple[Tensor, ...]:
        run = self.run
        with torch.no_grad():
            return run.task.trials(model, run.inputs, self.judging)

    def _forgetting(self, model: "PairModel") -> float:
        """Return D_f = 100 (1 - AUC), retained pairs being the positives: the AUC of deleted over retained ones."""
        return 100.0 * _auc(self._scores(model, self.deleted), self._scores(model, self.retained))

    def _scores(self, model: "PairModel", rows: Tensor) -> Tensor:
        with torch.no_grad():
            parts = [self._part(model, part) for part in rows.split(128)]
        return torch.cat(parts).double().cpu()

    def _part(self, model: "PairModel", rows: Tensor) -> Tensor:
        self.run.monitor.check()
        return self.run.task.scores(model, self.run.inputs, rows)


def excess_metric(lost: float, granted: float, chance: float, n: int) -> Metric:
    """Return ``utility_excess``, what ``n`` validation pairs say was lost beyond what may be.

    Args:
        lost: points of validation utility lost; negative for a gain.
        granted: points that may be lost, beside ``chance``.
        chance: standard error of the loss.
        n: how many pairs, or queries of a direction.
    """
    details = {"lost": lost, "granted": granted, "standard_error": chance}
    return Metric(
        name="utility_excess",
        moment="after",
        subset="val",
        value=max(0.0, lost - granted - chance) if n else None,
        n=n,
        direction="lower",
        unit="points",
        unavailable=None if n else "there are no validation pairs",
        details=details if n else {},
    )


def _together(requests: Tensor) -> list[Tensor]:
    """Return which pairs ``(G,)`` are judged by one mean: those of a request, and of all with few among them."""
    numbers, counts = requests.unique(return_counts=True)
    groups = [requests == number for number in numbers[counts >= TOGETHER]]
    few = torch.isin(requests, numbers[counts < TOGETHER])
    return [*groups, few] if few.any() else groups


def _share(value: float) -> float:
    return min(max(value, 0.0), 1.0)


def chance_of_auc(positives: int, negatives: int) -> float:
    """Return the standard error of the AUC of groups that are alike (Mann and Whitney 1947).

    At most 0.05: of a few pairs nearly any AUC could be chance, and each should still end in the middle.
    """
    if not positives or not negatives:
        return 0.0
    return min(MOST_CHANCE, math.sqrt((positives + negatives + 1) / (12 * positives * negatives)))


def _auc(positives: Tensor, negatives: Tensor) -> float:
    """Return the chance that a score of ``(P,)`` is above one of ``(N,)``; a tie counts half.

    NaN where a score is not finite.
    """
    scores = torch.cat([positives, negatives])
    if not torch.isfinite(scores).all():
        return math.nan
    positive = torch.arange(len(scores)) < len(positives)
    return float(roc_auc_score(positive.numpy(), scores.numpy()))


def rank(lost: float, d_f: float, tolerance: float, target: float) -> float:
    """Return the selection score of a student under ``decouple``, higher is better.

    Students that lost at most ``tolerance`` are ordered by D_f down to ``target``, and those that reached
    it by their loss. Those that lost more come after them; see `EXCHANGE`.

    Args:
        lost: points of validation utility lost; negative for a gain.
        d_f: D_f of the student, 0 to 100.
        tolerance: points that may be lost.
        target: D_f that is enough.
    """
    return _rank(lost, max(d_f, target), tolerance)


def rank_calibrated(lost: float, distance: float, tolerance: float) -> float:
    """Return the selection score of a student under ``calibrated``, higher is better.

    Students that lost more than ``tolerance`` come last, as in `rank`.

    Args:
        lost: points of validation utility lost; negative for a gain.
        distance: of the AUC against the unseen from 0.5, 0 to 0.5.
        tolerance: points that may be lost.
    """
    return _rank(lost, 100.0 * distance, tolerance)


def _rank(lost: float, far: float, tolerance: float) -> float:
    """Return the score of a student by what is to be low, 0 to 100: see `rank` and `rank_calibrated`."""
    if lost > tolerance:
        return -lost - far / EXCHANGE
    # The loss only separates students that are equally far: it weighs a hundredth.
    return 100.0 - far - lost / 100
