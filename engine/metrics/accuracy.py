"""Accuracy on deleted pairs: does the model still give them their own label?

The paper's text calls D_f "the same metric as on D_test", which this is; its tables print the AUC
that `engine.metrics.forgetting` measures. A deleted pair whose label an unrelated pair would get as
well stays "correct" however well it was forgotten, so read it by label, and against the accuracy on
retained and on never seen pairs in ``details``.
"""

from typing import Any

import numpy as np

from engine.metrics.base import Evidence, Floats, Moment, Observed, metrics
from engine.metrics.labels import Figure, share, share_by_label
from engine.metrics.reasons import not_finite, too_few
from engine.spec import Metric


@metrics.register("accuracy")
def accuracy(evidence: Evidence, _before: Evidence | None, moment: Moment) -> list[Metric]:
    """Return ``forget_accuracy`` in points, with the accuracies that it is to be read against."""
    deleted = evidence.deleted
    reason = _refusal(deleted)
    figure, details = Figure(unavailable=reason), {}
    if not reason:
        hits = _hits(deleted)
        figure = share(hits, evidence.seed)
        details = _others(evidence)
        details["per_label"] = share_by_label(deleted.labels, hits, evidence.seed)
    metric = Metric(
        name="forget_accuracy",
        moment=moment,
        subset=evidence.subset,
        value=figure.value,
        interval=figure.interval,
        n=len(deleted),
        direction="none",
        unit="points",
        unavailable=reason,
        details=details,
    )
    return [metric]


def _refusal(observed: Observed) -> str | None:
    if observed.labels is None:
        return "the pairs have no labels, so that there is no right answer to count"
    return too_few("deleted", len(observed), 1) or not_finite(observed.outputs)


def _hits(observed: Observed) -> Floats:
    """Return 1 where the most probable class is the label, else 0: ``(n,)``."""
    return np.asarray(observed.outputs.argmax(axis=1) == observed.labels, dtype=np.float64)


def _others(evidence: Evidence) -> dict[str, Any]:
    groups = {"retained": evidence.retained, "unseen": evidence.unseen}
    return {
        name: {"value": 100 * float(_hits(group).mean()), "n": len(group)}
        for name, group in groups.items()
        if len(group) and group.labels is not None
    }
