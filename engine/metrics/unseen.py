"""Against the unseen: can deleted pairs be told from pairs that the model never saw?

The value is the AUC of the pair score with deleted pairs as positives and unseen (validation and
test) pairs as negatives: the chance that a deleted pair scores above an unseen one. 0.5: a deleted
pair cannot be told from one that was never there. Above: it is still known. Far below: it is
over-forgotten, which itself marks it as deleted. The paper does not measure it.
"""

from typing import Literal

import numpy as np

from engine.metrics.base import Evidence, metrics
from engine.metrics.ranking import MIN_FOR_INTERVAL, auc, bootstrap_auc
from engine.metrics.reasons import not_finite, too_few
from engine.spec import Metric


@metrics.register("unseen")
def unseen(
    evidence: Evidence, _before: Evidence | None, moment: Literal["before", "after"]
) -> list[Metric]:
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
    metric = Metric(
        name="unseen_auc",
        moment=moment,
        subset=evidence.subset,
        value=None if reason else auc(deleted, others),
        interval=interval,
        n=len(deleted),
        direction="near_half",
        unavailable=reason,
        details={"n_unseen": len(others)},
    )
    return [metric]
