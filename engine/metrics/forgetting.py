"""D_f: can the model still tell deleted pairs from retained ones?

The value is ``100 * (1 - AUC)`` of the pair score with retained pairs as positives and deleted
pairs as negatives (the paper's tables, column D_f). 50: both look alike. Lower: deleted pairs look
unrelated.
"""

from typing import Any

import numpy as np

from engine.metrics.base import Evidence, Floats, Moment, Rows, metrics
from engine.metrics.labels import LEAST, Figure, by_label
from engine.metrics.ranking import MIN_FOR_INTERVAL, auc, bootstrap_auc
from engine.metrics.reasons import not_finite, too_few
from engine.metrics.scores import histograms
from engine.spec import Metric

DRAWS = 5
MIN_DRAW = 20
"""A draw is as large as D_f, and at least this large: one deleted pair is compared with many."""


@metrics.register("forgetting")
def forgetting(evidence: Evidence, _before: Evidence | None, moment: Moment) -> list[Metric]:
    """Return ``d_f`` with its interval; in ``details`` each label's value and the scores' spread.

    D_r is drawn five times without replacement; the mean AUC over the draws is the AUC against all
    five together. The interval is a bootstrap over deleted pairs and over the distinct retained
    pairs that were drawn.
    """
    deleted, retained = evidence.deleted, evidence.retained
    reason = (
        too_few("deleted", len(deleted), 1)
        or too_few("retained", len(retained), 1)
        or not_finite(deleted.scores, retained.scores)
    )
    if reason:
        return [_metric(evidence, moment, None, unavailable=reason)]
    random = np.random.default_rng([evidence.seed, 1])
    rows = _draws(len(deleted), len(retained), random)
    value = d_f(retained.scores[rows.ravel()], deleted.scores)
    interval = None
    if len(deleted) >= MIN_FOR_INTERVAL:
        interval = _interval(retained.scores[np.unique(rows)], deleted.scores, random)
    details: dict[str, Any] = {"draws": DRAWS, "draw_size": rows.shape[1]}
    details |= {"histograms": _spread(evidence), "per_label": _per_label(evidence)}
    kept = {name: found for name, found in details.items() if found}
    return [_metric(evidence, moment, value, interval=interval, details=kept)]


def d_f(retained: Floats, deleted: Floats) -> float:
    """Return ``100 * (1 - AUC)`` of scores ``(n,)`` of retained and ``(m,)`` of deleted pairs."""
    return 100 * (1 - auc(retained, deleted))


def _interval(
    retained: Floats, deleted: Floats, random: np.random.Generator
) -> tuple[float, float]:
    low, high = bootstrap_auc(retained, deleted, random)
    return 100 * (1 - high), 100 * (1 - low)


def _draws(deleted: int, retained: int, random: np.random.Generator) -> np.ndarray[Any, Any]:
    """Return the rows of five draws from the retained pairs, ``(5, size)``."""
    size = min(max(deleted, MIN_DRAW), retained)
    return np.stack([random.choice(retained, size=size, replace=False) for _ in range(DRAWS)])


def _spread(evidence: Evidence) -> dict[str, Any]:
    """Return histograms of the scores of deleted, retained and never seen pairs."""
    groups = {name: getattr(evidence, name).scores for name in ("deleted", "retained", "unseen")}
    return histograms(**{name: scores[np.isfinite(scores)] for name, scores in groups.items()})


def _per_label(evidence: Evidence) -> dict[str, dict[str, Any]]:
    """Return D_f of the deleted pairs of each label against the retained pairs of that label."""
    deleted, retained = evidence.deleted, evidence.retained

    def measure(label: int, mine: Rows) -> Figure:
        others = retained.scores[retained.labels == label]
        reason = too_few("retained", len(others), LEAST)
        if reason:
            return Figure(unavailable=reason, against=len(others))
        random = np.random.default_rng([evidence.seed, 7, label])
        scores = deleted.scores[mine]
        return Figure(d_f(others, scores), _interval(others, scores, random), against=len(others))

    return by_label(None if retained.labels is None else deleted.labels, measure)


def _metric(
    evidence: Evidence,
    moment: Moment,
    value: float | None,
    *,
    interval: tuple[float, float] | None = None,
    unavailable: str | None = None,
    details: dict[str, Any] | None = None,
) -> Metric:
    return Metric(
        name="d_f",
        moment=moment,
        subset=evidence.subset,
        value=value,
        interval=interval,
        n=len(evidence.deleted),
        direction="lower",
        unit="points",
        unavailable=unavailable,
        details=details or {},
    )
