"""Against the unseen: can deleted pairs be told from pairs that the model never saw?

The value is the AUC of the pair score with deleted pairs as positives and unseen pairs as negatives: the
chance that a deleted pair scores above an unseen one. 0.5: a deleted pair cannot be told from one that
was never there. Above: it is still known. Far below: it is over-forgotten, which itself marks it as
deleted. Unseen are the test pairs: an unlearning may stop by validation pairs, and hold some in place.
Only a data set without test pairs is measured on validation pairs. The paper does not measure it.
"""

from typing import Any

import numpy as np

from engine.metrics.base import Evidence, Moment, Rows, metrics
from engine.metrics.labels import LEAST, Figure, by_label
from engine.metrics.ranking import MIN_FOR_INTERVAL, auc, bootstrap_auc
from engine.metrics.reasons import not_finite, too_few
from engine.spec import Metric


@metrics.register("unseen")
def unseen(evidence: Evidence, _before: Evidence | None, moment: Moment) -> list[Metric]:
    """Return ``unseen_auc`` with a bootstrap interval over deleted and unseen pairs."""
    deleted, others = evidence.deleted.scores, evidence.unseen.scores
    reason = (
        too_few("deleted", len(deleted), 1)
        or too_few("unseen", len(others), 1)
        or not_finite(deleted, others)
    )
    interval = None
    if not reason and min(len(deleted), len(others)) >= MIN_FOR_INTERVAL:
        random = np.random.default_rng([evidence.seed, 3])
        interval = bootstrap_auc(deleted, others, random)
    details: dict[str, Any] = {"n_unseen": len(others)}
    per_label = {} if reason else _per_label(evidence)
    metric = Metric(
        name="unseen_auc",
        moment=moment,
        subset=evidence.subset,
        value=None if reason else auc(deleted, others),
        interval=interval,
        n=len(deleted),
        direction="near_half",
        unavailable=reason,
        details=details | ({"per_label": per_label} if per_label else {}),
    )
    return [metric]


def _per_label(evidence: Evidence) -> dict[str, dict[str, Any]]:
    """Return the AUC of the deleted pairs of each label against unseen pairs of that label."""
    deleted, unseen_pairs = evidence.deleted, evidence.unseen

    def measure(label: int, mine: Rows) -> Figure:
        others = unseen_pairs.scores[unseen_pairs.labels == label]
        reason = too_few("unseen", len(others), LEAST)
        if reason:
            return Figure(unavailable=reason, against=len(others))
        random = np.random.default_rng([evidence.seed, 8, label])
        scores = deleted.scores[mine]
        interval = bootstrap_auc(scores, others, random)
        return Figure(auc(scores, others), interval, against=len(others))

    return by_label(None if unseen_pairs.labels is None else deleted.labels, measure)
