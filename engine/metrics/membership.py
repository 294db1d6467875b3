"""Membership inference: does the model's output betray that a pair was in its training set?

The attack is a support vector machine on the output distribution of a pair (its entropy and its
sorted probabilities). It is fitted on validation pairs (non-members) and as many retained training
pairs (members), anew for each model. Reported are the MI ratio (the mean membership probability
of D_f before / after; above 1 means less exposed, as in the paper's tables), the attack's AUC
and its true positive rate at 1% false positives, both on pairs held out from the fit, and by label: members
of a label against non-members of it. Non-members are
validation pairs, by which epochs are chosen, and some of which an unlearning may hold in place; test
pairs stay untouched for utility. It is one attack for all pairs: `engine.metrics.ulira` is the
stronger one, fitted to each pair.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from engine.errors import InvalidSpec
from engine.metrics.base import Evidence, Floats, Labels, Moment, Observed, Rows, metrics
from engine.metrics.labels import LEAST, Figure, by_label
from engine.metrics.ranking import (
    MIN_FOR_INTERVAL,
    auc,
    bootstrap,
    bootstrap_auc,
    bootstrap_rate,
    rate_at,
)
from engine.metrics.reasons import not_finite, too_few
from engine.spec import Direction, Metric

FOLDS = 5
MIN_GROUP = 20
MAX_GROUP = 500
"""Members and non-members that the attack is fitted on, each; a support vector machine is cubic."""
MOST_SORTED = 32
"""Probabilities that the attack sees, from the highest. Of hundreds of retrieval candidates the
tail tells which ones were left out for a pair, and not whether the pair was a member."""
MIN_FOR_RATE = 100
FALSE_POSITIVES = 0.01


@dataclass(frozen=True)
class Attack:
    """An attack fitted on one model.

    Attributes:
        classifier: gives the probability of membership of features.
        members: held-out decision values ``(k,)`` of members.
        others: held-out decision values ``(k,)`` of non-members.
        member_labels: of the members ``(k,)``, or None where pairs have none.
        other_labels: of the non-members, likewise.
    """

    classifier: CalibratedClassifierCV
    members: Floats
    others: Floats
    member_labels: Labels | None = None
    other_labels: Labels | None = None

    def by_label(
        self, measure: Callable[[int, Floats, Floats], Figure]
    ) -> dict[str, dict[str, Any]]:
        """Return a measure of (label, members of it, non-members of it); see `labels.by_label`."""
        if self.member_labels is None or self.other_labels is None:
            return {}
        other_labels = self.other_labels

        def of(label: int, rows: Rows) -> Figure:
            others = self.others[other_labels == label]
            found = measure(label, self.members[rows], others)
            return replace(found, against=len(others))

        return by_label(self.member_labels, of, "retained")

    def probabilities(self, observed: Observed) -> Floats:
        """Return the probability ``(n,)`` that each pair was a member."""
        given: Floats = self.classifier.predict_proba(features(observed.outputs))[:, 1]
        return given


@dataclass(frozen=True)
class _Finding:
    """The part of a `Metric` that differs between the three."""

    n: int
    value: float | None = None
    interval: tuple[float, float] | None = None
    unavailable: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


@metrics.register("membership")
def membership(evidence: Evidence, before: Evidence | None, moment: Moment) -> list[Metric]:
    """Return ``mi_attack_auc`` and ``mi_tpr_at_1pct_fpr``, and ``mi_ratio`` after unlearning."""
    reason = _refusal(evidence)
    attack = None if reason else _attack_on(evidence)
    found: list[tuple[str, Direction, _Finding]] = [
        (
            "mi_attack_auc",
            "near_half",
            _with_deleted(
                evidence, attack, evidence.once("mi_auc", lambda: _auc(evidence, attack, reason))
            ),
        ),
        (
            "mi_tpr_at_1pct_fpr",
            "lower",
            evidence.once("mi_rate", lambda: _rate(evidence, attack, reason)),
        ),
    ]
    if moment == "after":
        found.insert(0, ("mi_ratio", "higher", _ratio(evidence, before, attack, reason)))
    return [
        Metric(
            name=name,
            moment=moment,
            subset=evidence.subset,
            value=finding.value,
            interval=finding.interval,
            n=finding.n,
            direction=direction,
            unavailable=finding.unavailable,
            details=finding.details,
        )
        for name, direction, finding in found
    ]


def features(outputs: Floats) -> Floats:
    """Return ``(n, 1 + min(C, 32))``: entropy in nats, then the highest probabilities, sorted."""
    logs = np.log(np.where(outputs > 0, outputs, 1.0))
    entropy = -(outputs * logs).sum(axis=1, keepdims=True)
    return np.hstack([entropy, -np.sort(-outputs, axis=1)[:, :MOST_SORTED]])


def fit_attack(evidence: Evidence) -> Attack:
    """Fit the attack on as many retained as validation pairs, at most 500 of each."""
    random = np.random.default_rng([evidence.seed, 2])
    size = min(len(evidence.validation), len(evidence.retained), MAX_GROUP)
    inside = random.choice(len(evidence.retained), size=size, replace=False)
    outside = random.choice(len(evidence.validation), size=size, replace=False)
    rows = np.vstack([evidence.retained.outputs[inside], evidence.validation.outputs[outside]])
    labels = np.repeat([1, 0], size)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=evidence.seed)
    known = features(rows)
    held_out = cross_val_predict(_machine(), known, labels, cv=folds, method="decision_function")
    classifier = CalibratedClassifierCV(_machine(), cv=folds, ensemble=False).fit(known, labels)
    return Attack(
        classifier,
        members=held_out[:size],
        others=held_out[size:],
        member_labels=_taken(evidence.retained.labels, inside),
        other_labels=_taken(evidence.validation.labels, outside),
    )


def _taken(labels: Labels | None, rows: Rows) -> Labels | None:
    return None if labels is None else labels[rows]


def _attack_on(evidence: Evidence) -> Attack:
    return evidence.once("mi_attack", lambda: fit_attack(evidence))


def _machine() -> Pipeline:
    return make_pipeline(StandardScaler(), SVC(class_weight="balanced"))


def _refusal(evidence: Evidence) -> str | None:
    return (
        too_few("retained", len(evidence.retained), MIN_GROUP)
        or too_few("validation", len(evidence.validation), MIN_GROUP)
        or not_finite(evidence.retained.outputs, evidence.validation.outputs)
    )


def _ratio(
    evidence: Evidence, before: Evidence | None, attack: Attack | None, reason: str | None
) -> _Finding:
    n = len(evidence.deleted)
    reason = reason or _ratio_refusal(evidence, before)
    if reason or before is None or attack is None:
        return _Finding(n, unavailable=reason)
    old = _attack_on(before).probabilities(before.deleted)
    new = attack.probabilities(evidence.deleted)
    interval = None
    if n >= MIN_FOR_INTERVAL:
        interval = _ratio_interval(old, new, np.random.default_rng([evidence.seed, 4]))
    details: dict[str, Any] = {"mean_before": float(old.mean()), "mean_after": float(new.mean())}
    per_label = _per_label(evidence, old, new)
    details |= {"per_label": per_label} if per_label else {}
    return _Finding(n, mi_ratio(old, new), interval, details=details)


def _ratio_interval(old: Floats, new: Floats, random: np.random.Generator) -> tuple[float, float]:
    return bootstrap(lambda rows: mi_ratio(old[rows], new[rows]), len(old), random)


def _per_label(evidence: Evidence, old: Floats, new: Floats) -> dict[str, dict[str, Any]]:
    """Return the MI ratio of the deleted pairs of each label, by the same two attacks."""

    def measure(label: int, mine: Rows) -> Figure:
        random = np.random.default_rng([evidence.seed, 10, label])
        interval = _ratio_interval(old[mine], new[mine], random)
        return Figure(mi_ratio(old[mine], new[mine]), interval)

    return by_label(evidence.deleted.labels, measure)


def mi_ratio(before: Floats, after: Floats) -> float:
    """Return the mean membership probability ``(n,)`` of D_f before, divided by the one after."""
    return float(before.mean() / max(after.mean(), np.finfo(np.float64).tiny))


def _ratio_refusal(evidence: Evidence, before: Evidence | None) -> str | None:
    if before is None:
        return "needs the observations of the model before unlearning; there are none"
    if len(before.deleted) != len(evidence.deleted):
        raise InvalidSpec(
            f"the model before was observed on {len(before.deleted)} deleted pairs and the model "
            f"after on {len(evidence.deleted)}; they must be the same pairs in the same order"
        )
    return (
        too_few("deleted", len(evidence.deleted), 1)
        or not_finite(evidence.deleted.outputs, before.deleted.outputs)
        or _refusal(before)
    )


def _auc(evidence: Evidence, attack: Attack | None, reason: str | None) -> _Finding:
    if attack is None:
        return _Finding(0, unavailable=reason)
    random = np.random.default_rng([evidence.seed, 5])
    interval = bootstrap_auc(attack.members, attack.others, random)
    value = auc(attack.members, attack.others)

    def of_label(label: int, members: Floats, others: Floats) -> Figure:
        reason = too_few("validation", len(others), LEAST)
        if reason:
            return Figure(unavailable=reason)
        random = np.random.default_rng([evidence.seed, 16, label])
        return Figure(auc(members, others), bootstrap_auc(members, others, random))

    return _Finding(_measured(attack), value, interval, details=_details(attack, of_label))


def _with_deleted(evidence: Evidence, attack: Attack | None, finding: _Finding) -> _Finding:
    """Add the mean membership probability of the deleted pairs: two models' make their MI ratio."""
    if attack is None or not len(evidence.deleted) or not_finite(evidence.deleted.outputs):
        return finding
    mean = float(attack.probabilities(evidence.deleted).mean())
    return replace(finding, details={**finding.details, "mean_on_deleted": mean})


def _rate(evidence: Evidence, attack: Attack | None, reason: str | None) -> _Finding:
    if attack is not None:
        reason = too_few("validation and as many retained", len(attack.others), MIN_FOR_RATE)
    if attack is None or reason:
        return _Finding(0, unavailable=reason)
    members, others = attack.members, attack.others
    random = np.random.default_rng([evidence.seed, 6])
    interval = bootstrap_rate(members, others, FALSE_POSITIVES, random)
    value = rate_at(members, others, FALSE_POSITIVES)

    def of_label(label: int, members: Floats, others: Floats) -> Figure:
        reason = too_few("validation", len(others), MIN_FOR_RATE)
        if reason:
            return Figure(unavailable=reason)
        random = np.random.default_rng([evidence.seed, 17, label])
        interval = bootstrap_rate(members, others, FALSE_POSITIVES, random)
        return Figure(rate_at(members, others, FALSE_POSITIVES), interval)

    return _Finding(_measured(attack), value, interval, details=_details(attack, of_label))


def _measured(attack: Attack) -> int:
    return len(attack.members) + len(attack.others)


def _details(attack: Attack, of_label: Callable[[int, Floats, Floats], Figure]) -> dict[str, Any]:
    sizes = {"members": len(attack.members), "non_members": len(attack.others), "folds": FOLDS}
    per_label = attack.by_label(of_label)
    return sizes | ({"per_label": per_label} if per_label else {})
