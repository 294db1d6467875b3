"""U-LiRA: an attack on each pair by what reference models say of it (Hayes et al. 2024).

One attacker for all pairs, as in `engine.metrics.membership`, overrates what was forgotten: pairs
differ more from one another than a pair that was learned differs from itself unlearned. Here each
pair has an attacker of its own (arXiv 2403.01218; LiRA: Carlini et al. 2022). Of K reference models
half learned a pair, and were then made to forget it, as the audited version was, where it is a
deleted one (`engine.references`). For the logit-scaled pair score phi

    log N(phi; mu_in, sigma_in^2) - log N(phi; mu_out, sigma_out^2)

says how much likelier the score is if the pair was learned (and, of deleted pairs, unlearned
again) than if it never was there. The means are the pair's own; the variances are pooled over
pairs, as LiRA does with few models.

Group ``forget``: deleted pairs against test pairs that the version never saw. Before, it is LiRA on
the original, and shows what the attack can do at all; after, an AUC of 0.5 means that a deleted pair
cannot be told from one that was never there, however strongly or weakly it now scores.
Group ``retained``: retained pairs against other test pairs, since what stays can pay for what goes.

What it cannot show: with few references the attack is weak, and an AUC near 0.5 is no proof. It
sees one score of each pair, not the weights. Unlearning by earlier requests is not repeated in the
references. The interval is over pairs, not over reference models.

``on_references`` in ``details`` is the same figure when each reference is attacked with the others, as
the paper evaluates it: of the procedure and not of this one version, with the same pairs on both sides, and
with half of the models times all pairs there, enough for rates that a single version has too few
pairs for. ``per_label`` is the figure of the group's pairs of each label against those of that label that were
never seen, of this model and of references.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.metrics.base import (
    Evidence,
    Floats,
    Labels,
    Moment,
    ReferenceScores,
    Rows,
    metrics,
)
from engine.metrics.labels import Figure, by_label
from engine.metrics.ranking import (
    MIN_FOR_INTERVAL,
    auc,
    bootstrap,
    bootstrap_auc,
    bootstrap_rate,
    rate_at,
)
from engine.metrics.reasons import not_finite, too_few
from engine.metrics.scores import logit_scaled, span
from engine.spec import Metric

RATES = {"ulira_tpr_at_1pct_fpr": 0.01, "ulira_tpr_at_0.1pct_fpr": 0.001}
NAMES = ("ulira_auc", *RATES)
LEAST_VARIANCE = 1e-12

Chosen = NDArray[np.bool_]


@metrics.register("ulira")
def ulira(evidence: Evidence, _before: Evidence | None, moment: Moment) -> list[Metric]:
    """Return the attack's AUC and its rates for deleted and for retained pairs of this run.

    Without reference models they are unavailable, once.
    """
    if evidence.subset != "forget":
        return []
    if isinstance(evidence.references, str):
        reason = Figure(unavailable=evidence.references)
        missing = [_metric(name, moment, "forget", 0, reason, {}) for name in NAMES]
        return missing if moment == "after" else []
    found = []
    for number, (group, given) in enumerate(evidence.references.items()):
        found += _group(group, given, moment, evidence.seed + 1000 * number)
    return found


def log_ratio(target: Floats, references: Floats, inside: Chosen, outside: Chosen) -> Floats:
    """Return how much likelier each scaled score is for a pair that was learned, in nats.

    Args:
        target: scaled scores by the model under attack ``(n,)``.
        references: scaled scores by the reference models ``(K, n)``.
        inside: the references that learned the pair ``(K, n)``, one at least for each pair.
        outside: the references that did not, likewise.
    """
    ratio: Floats = _log_density(target, references, inside) - _log_density(
        target, references, outside
    )
    return ratio


def _log_density(target: Floats, references: Floats, chosen: Chosen) -> Floats:
    """Return the log density of ``target`` ``(n,)`` under the chosen references of each pair."""
    counts = chosen.sum(axis=0)
    means = np.where(chosen, references, 0).sum(axis=0) / counts
    squares = np.where(chosen, references - means, 0) ** 2
    variance = max(squares.sum() / max((counts - 1).sum(), 1), LEAST_VARIANCE)
    density: Floats = -0.5 * (np.log(2 * np.pi * variance) + (target - means) ** 2 / variance)
    return density


def _group(group: str, given: ReferenceScores, moment: Moment, seed: int) -> list[Metric]:
    scale = span(given.target, given.references)
    references = logit_scaled(given.references, scale)
    target = logit_scaled(given.target, scale)
    ratios = log_ratio(target, references, given.inside, ~given.inside)
    members, others = ratios[given.member], ratios[~given.member]
    reason = not_finite(given.target, given.references) or too_few("learned", len(members), 1)
    pooled = None if reason else _Pooled.of(references, given.inside, given.labels)
    details = {"never_seen": len(others), "reference_models": len(references)}
    figures = {"ulira_auc": _auc(members, others, reason, seed)}
    for name, rate in RATES.items():
        figures[name] = _rate(members, others, reason, rate, seed)
    found = []
    for name, figure in figures.items():
        more: dict[str, Any] = {} if pooled is None else pooled.figure(RATES.get(name), seed)
        if not reason:
            by = _by_label(name, (members, others), given, seed)
            more |= {"per_label": by} if by else {}
        found.append(_metric(name, moment, group, len(members), figure, details | more))
    return found


def _by_label(
    name: str, ratios: tuple[Floats, Floats], given: ReferenceScores, seed: int
) -> dict[str, dict[str, Any]]:
    if given.labels is None:
        return {}
    (members, others), labels = ratios, given.labels

    def measure(label: int, rows: Rows) -> Figure:
        unseen = others[labels[~given.member] == label]
        if name in RATES:
            found = _rate(members[rows], unseen, None, RATES[name], seed)
        else:
            found = _auc(members[rows], unseen, None, seed)
        return replace(found, against=len(unseen))

    return by_label(labels[given.member], measure)


def _auc(members: Floats, others: Floats, reason: str | None, seed: int) -> Figure:
    reason = reason or too_few("never seen", len(others), 1)
    if reason:
        return Figure(unavailable=reason)
    interval = None
    if min(len(members), len(others)) >= MIN_FOR_INTERVAL:
        interval = bootstrap_auc(members, others, np.random.default_rng([seed, 12]))
    return Figure(auc(members, others), interval)


def _rate(members: Floats, others: Floats, reason: str | None, rate: float, seed: int) -> Figure:
    # With fewer pairs on the other side than one in the rate, not even one may be above.
    reason = reason or too_few("never seen", len(others), round(1 / rate))
    if reason:
        return Figure(unavailable=reason)
    random = np.random.default_rng([seed, 13])
    return Figure(rate_at(members, others, rate), bootstrap_rate(members, others, rate, random))


@dataclass(frozen=True)
class _Pooled:
    """The attack on every reference by the others.

    Attributes:
        ratios: log ratios ``(K, n)``.
        inside: whether that reference learned the pair ``(K, n)``.
        labels: of the pairs ``(n,)``, or None.
    """

    ratios: Floats
    inside: Chosen
    labels: Labels | None

    @classmethod
    def of(cls, references: Floats, inside: Chosen, labels: Labels | None) -> "_Pooled":
        return cls(np.stack(list(_left_out(references, inside))), inside, labels)

    def figure(self, rate: float | None, seed: int) -> dict[str, Any]:
        """Return the AUC, or the true positive rate at ``rate``, with an interval over pairs."""
        whole = self._figure(np.arange(self.ratios.shape[1]), rate, seed)
        found: dict[str, Any] = {
            "value": whole.value,
            "interval": whole.interval,
            "unavailable": whole.unavailable,
            "n": int(self.inside.sum()),
            "never_seen": whole.against,
        }
        by = by_label(self.labels, lambda _label, rows: self._figure(rows, rate, seed))
        return {"on_references": found | ({"per_label": by} if by else {})}

    def _figure(self, pairs: Rows, rate: float | None, seed: int) -> Figure:
        """Return the figure of some pairs ``(k,)``: by references that learned them against those that did not."""

        def value(rows: Rows) -> float:
            ratios, inside = self.ratios[:, pairs[rows]], self.inside[:, pairs[rows]]
            members, others = ratios[inside], ratios[~inside]
            return auc(members, others) if rate is None else rate_at(members, others, rate)

        unseen = int((~self.inside[:, pairs]).sum())
        reason = too_few("never seen", unseen, round(1 / (rate or 1)))
        if reason:
            return Figure(unavailable=reason, against=unseen)
        interval = None
        if len(pairs) >= MIN_FOR_INTERVAL:
            interval = bootstrap(value, len(pairs), np.random.default_rng([seed, 15]))
        return Figure(value(np.arange(len(pairs))), interval, against=unseen)


def _left_out(references: Floats, inside: Chosen) -> Iterator[Floats]:
    """Yield the ratios ``(n,)`` of each reference by all the others."""
    # Each pair is in half of the models. Without the one under attack fewer are left of its own
    # kind, and their number alone would give it away: both kinds are cut to the same number.
    same = int(min(inside.sum(axis=0).min(), (~inside).sum(axis=0).min())) - 1
    for model in range(len(references)):
        rest = np.arange(len(references)) != model
        kinds = (inside[rest], ~inside[rest])
        chosen = [kind & (kind.cumsum(axis=0) <= same) for kind in kinds]
        yield log_ratio(references[model], references[rest], *chosen)


def _metric(
    name: str, moment: Moment, group: str, n: int, figure: Figure, details: dict[str, Any]
) -> Metric:
    return Metric(
        name=name,
        moment=moment,
        subset=group,
        value=figure.value,
        interval=figure.interval,
        n=n,
        direction="lower" if name in RATES else "near_half",
        unavailable=figure.unavailable,
        details=details,
    )
