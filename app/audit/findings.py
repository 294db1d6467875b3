"""From the metrics of an audit to the rows of a report."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from app.audit.readings import METRICS, figure, measured, reading_of
from app.audit.schemas import Finding, LabelFinding, Measured, MetricOut, ScoreSpread
from app.audit.sentences import STILL
from app.ledger.certificate import ATTACK_METRICS
from app.ledger.explain import subset_name

GRANTED = "utility_excess"
"""Measured on validation pairs, of which nothing else is shown."""
KEPT = "retained"
"""A sample of the pairs that stayed: what is measured on them depends on no request."""
JOB = "forget"
"""The pairs that the job forgot, those of every request that shares it."""
AFTER_ALONE = frozenset({"d_f"})
"""Read without the figure from before where some of the pairs were forgotten by then."""
GROUPS = {"deleted": "deleted", "retained": "kept", "unseen": "never seen"}
"""Whose scores are shown, and in a reader's words."""

ByMoment = dict[str, MetricOut]


@dataclass(frozen=True)
class Concern:
    """What a version is to a request.

    Attributes:
        request_id: the request.
        made_for: whether the version was made for it, or had forgotten its pairs already.
        here: how many of the request's training pairs the version was made to forget.
        before: how many the versions before it had forgotten, or never learned.
        whose: the request in a reader's words.
    """

    request_id: str
    made_for: bool = True
    here: int = 0
    before: int = 0
    whose: str = "this request"

    @property
    def total(self) -> int:
        """All training pairs of the request."""
        return self.here + self.before


def findings(
    metrics: Sequence[MetricOut], concern: Concern, aim: str = "decouple"
) -> list[Finding]:
    """Return each explained metric before and after, for the pairs that concern the request.

    These are the test pairs, the validation pairs for what was lost there beyond what was granted,
    the request's own (or the job's, which are the same where one request has the job to itself and
    nothing was forgotten before), where they are others, all that the version has ever forgotten,
    and the pairs that stayed. Of a version that was not made for the
    request, only all that it has ever forgotten has the request's pairs in it. The attack by
    reference models is made on the job's pairs as a whole, so that it is shown on these where
    requests share a job.
    """
    by_key: dict[tuple[str, str], ByMoment] = {}
    for metric in metrics:
        by_key.setdefault((metric.name, metric.subset), {})[metric.moment] = metric
    return [
        _finding(name, subset, by_key[name, subset], aim, concern)
        for subset, names in _subsets(metrics, concern).items()
        for name in names
        if _is_shown(name, by_key.get((name, subset), {}))
    ]


def verdict(found: Sequence[Finding]) -> str:
    """Say in one line what the figures show about forgetting, in the words of the findings.

    Of the pairs that concern the request, as `findings` has them; where D_f is not among the figures,
    no forgetting is shown.
    """
    readings: dict[str, str] = {}
    for finding in found:
        if finding.subset not in {"test", KEPT}:
            readings.setdefault(finding.name, finding.reading)
    if "d_f" not in readings:
        return "Whether the pairs were forgotten was not measured: no forgetting is shown."
    said = f"Deleted against kept pairs: {readings['d_f']}"
    if "unseen_auc" in readings:
        said += f" Deleted against never seen pairs: {readings['unseen_auc']}"
    if _exceeded(found):
        said += f" Quality on validation pairs: {readings[GRANTED]}"
    return said


def _exceeded(found: Sequence[Finding]) -> bool:
    """Say whether more of the quality was lost than was granted."""
    return any(
        one.name == GRANTED and one.after and (one.after.value or 0) >= STILL for one in found
    )


def score_spreads(metrics: Sequence[MetricOut], concern: Concern) -> list[ScoreSpread]:
    """Return how scores are spread before and after, beside the request's own pairs."""
    mine = _own_subset({metric.subset for metric in metrics}, concern)
    found = {
        metric.moment: metric.details["histograms"]
        for metric in metrics
        if (metric.name, metric.subset) == ("d_f", mine) and "histograms" in metric.details
    }
    return [
        ScoreSpread(moment=moment, reading=_middles(found[moment]), **found[moment])
        for moment in ("before", "after")
        if moment in found
    ]


def _is_shown(name: str, found: ByMoment) -> bool:
    if not METRICS[name].optional:
        return bool(found)
    return any(
        metric.value is not None or metric.details.get("reference_models")
        for metric in found.values()
    )


def _subsets(metrics: Sequence[MetricOut], concern: Concern) -> dict[str, Iterable[str]]:
    """Return the subsets that are shown, in order, and what is shown of each."""
    sizes = {metric.subset: metric.n for metric in metrics if metric.name in {"d_f", "d_test"}}
    mine = _own_subset(set(sizes), concern)
    shown: dict[str, Iterable[str]] = {"test": METRICS, "val": (GRANTED,), mine: METRICS}
    alone = [one for one in sizes if one.startswith("request:")] == [mine]
    if alone and sizes.get(JOB, 0) < sizes[mine]:
        shown[JOB] = METRICS  # the request has the job to itself, but some pairs were gone before
    if mine != "forgotten" and sizes.get("forgotten") != sizes.get(mine):
        shown["forgotten"] = METRICS
    found = {subset: names for subset, names in shown.items() if subset in sizes}
    if concern.made_for:
        found.setdefault(JOB, ATTACK_METRICS)
    return {**found, KEPT: METRICS}


def _own_subset(subsets: set[str], concern: Concern) -> str:
    """Return the smallest subset that has all pairs of the request in it, as far as it was measured.

    The first version of a lineage that forgot anything has no ``forgotten``: there it is ``forget``.
    """
    own = f"request:{concern.request_id}"
    if own in subsets:
        return own
    return "forgotten" if not concern.made_for and "forgotten" in subsets else JOB


def _finding(name: str, subset: str, found: ByMoment, aim: str, concern: Concern) -> Finding:
    before, after = found.get("before"), found.get("after")
    old, new = (None if metric is None else measured(metric) for metric in (before, after))
    n = next(metric.n for metric in (after, before) if metric is not None)
    alone = name in AFTER_ALONE and _is_mixed(subset, n, concern)
    return Finding(
        name=name,
        title=METRICS[name].title,
        subset=subset,
        pairs=_pairs(subset, n, concern),
        before=old,
        after=new,
        meaning=METRICS[name].meaning,
        reading=reading_of(name, None if alone else old, new, aim),
        per_label=_per_label(name, before, after),
    )


def _is_mixed(subset: str, n: int, concern: Concern) -> bool:
    """Say whether some of the pairs had been forgotten before the version was made."""
    if subset.startswith("request:"):
        return bool(concern.before) and n > concern.here
    return subset == "forgotten"


def _pairs(subset: str, n: int, concern: Concern) -> str:
    """Say in words which pairs were measured, and which of the request's own are not among them."""
    total, before, whose = concern.total, concern.before, concern.whose
    if subset == KEPT:
        return "on pairs that were kept"
    if subset == "forgotten":
        return subset_name(subset) + (f", those of {whose} among them" if before else "")
    own = subset.startswith("request:")
    if own and _is_mixed(subset, n, concern):
        return (
            f"on the {total:,} pairs of {whose}, {before:,} of them forgotten before this version"
        )
    if (own or subset == JOB) and before and n == concern.here and concern.made_for:
        return f"on {n:,} of the {total:,} pairs of {whose}: those that this version was made to forget"
    return f"on the pairs of {whose}" if own else subset_name(subset)


def _per_label(name: str, before: MetricOut | None, after: MetricOut | None) -> list[LabelFinding]:
    """Return the figures of each label, where there are several labels."""
    old, new = (
        {} if metric is None else metric.details.get("per_label", {}) for metric in (before, after)
    )
    labels = list(dict.fromkeys([*old, *new]))
    if len(labels) < 2:
        return []
    return [
        LabelFinding(
            label=label,
            before=_of_label(name, old.get(label)),
            after=_of_label(name, new.get(label)),
        )
        for label in labels
    ]


def _of_label(name: str, entry: dict[str, Any] | None) -> Measured | None:
    if entry is None:
        return None
    reason = entry.get("unavailable") or "too few pairs"
    return figure(name, entry["value"], entry.get("interval"), entry["n"], reason)


def _middles(spread: dict[str, Any]) -> str:
    """Say above which score about half of each group is, to the middle of a bin."""
    parts = [
        f"{words} {_middle(spread[group], spread['low'], spread['high']):.2f}"
        for group, words in GROUPS.items()
        if sum(spread[group])
    ]
    return f"Half of the pairs score above about: {', '.join(parts)}."


def _middle(counts: Sequence[int], low: float, high: float) -> float:
    """Return the middle of the bin that holds the median of ``counts``, which are not all 0."""
    total = sum(counts)
    place = next(at for at, passed in enumerate(accumulate(counts)) if 2 * passed >= total)
    return low + (high - low) * (place + 0.5) / len(counts)
