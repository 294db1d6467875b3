"""What each figure means, and how an outcome reads, in sentences for people who are no engineers.

A reading never claims more than the interval does: where 50, 0.5 or 1 lies inside of it, the
sentence says that no difference is shown.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from app.audit.schemas import Measured, MetricOut

UNRELATED = 30.0
"""D_f whose whole interval lies at or below this is read as: the pairs look unrelated."""

Reading = Callable[[Measured | None, Measured | None], str]


@dataclass(frozen=True)
class Explained:
    """Title, meaning and reading of one metric; ``decimals`` of its values in a table."""

    title: str
    meaning: str
    reading: Reading
    decimals: int


def measured(metric: MetricOut) -> Measured:
    """Return the value with its margin of error, in figures and as text."""
    explained = METRICS.get(metric.name)
    decimals = explained.decimals if explained else 3
    return Measured(
        value=metric.value,
        interval=metric.interval,
        n=metric.n,
        unavailable=metric.unavailable,
        text=_text(metric, decimals),
    )


def _text(metric: MetricOut, decimals: int) -> str:
    if metric.value is None:
        return f"not available: {metric.unavailable}"
    if metric.interval is None:
        return f"{metric.value:.{decimals}f} (no interval: too few pairs)"
    low, high = metric.interval
    return f"{metric.value:.{decimals}f} ({low:.{decimals}f} to {high:.{decimals}f})"


def reading_of(name: str, before: Measured | None, after: Measured | None) -> str:
    """Return how the outcome of a metric reads, or that it is not explained here."""
    explained = METRICS.get(name)
    return explained.reading(before, after) if explained else "See the metric's definition."


def _side(found: Measured | None, middle: float) -> str:
    """Say where ``found`` lies: above, below or at ``middle``; unknown without an interval."""
    if found is None or found.value is None or found.interval is None:
        return "unknown"
    low, high = found.interval
    if low > middle:
        return "above"
    return "below" if high < middle else "at"


def _by_side(middle: float, sentences: Mapping[str, str]) -> Reading:
    def read(_before: Measured | None, after: Measured | None) -> str:
        side = _side(after, middle)
        if side != "unknown":
            return sentences[side]
        return _no_interval(after)

    return read


def _no_interval(found: Measured | None) -> str:
    if found is None:
        return "It was not measured afterwards."
    if found.value is None:
        return "It could not be measured, so nothing can be said."
    return "Too few pairs for a margin of error: take this figure as an indication only."


def _quality(before: Measured | None, after: Measured | None) -> str:
    if before is None or after is None or before.value is None or after.value is None:
        return _no_interval(after)
    change = after.value - before.value
    moved = "did not change" if abs(change) < 0.05 else f"changed by {change:+.1f} points"
    margin = ", within the margin of error" if _overlap(before, after) else ""
    return f"Quality on pairs that nobody asked to delete {moved}{margin}."


def _against_kept(before: Measured | None, after: Measured | None) -> str:
    if before is not None and after is not None and _overlap(before, after):
        return "The change is not larger than the margin of error: no forgetting is shown."
    sentences = {
        "below": "The model now takes deleted pairs for less related than kept ones.",
        "at": "Deleted pairs cannot be told from kept ones: no forgetting is shown.",
        "above": "Deleted pairs score above kept ones: they are not forgotten.",
    }
    sentence = _by_side(50.0, sentences)(before, after)
    if after is not None and after.interval is not None and after.interval[1] <= UNRELATED:
        sentence = "Deleted pairs now look unrelated to the model."
    if _side(before, 50.0) == "at" and _side(after, 50.0) == "below":
        return f"Before, they looked like kept pairs. {sentence}"
    return sentence


def _overlap(one: Measured, other: Measured) -> bool:
    """Say whether two intervals have a value in common; without both, that they do not."""
    if one.interval is None or other.interval is None:
        return False
    return one.interval[0] <= other.interval[1] and other.interval[0] <= one.interval[1]


METRICS: dict[str, Explained] = {
    "d_test": Explained(
        "Quality on test pairs (D_test)",
        "How well the model does its task on held-out pairs, in points of 100. It should stay"
        " about where it was.",
        _quality,
        1,
    ),
    "d_f": Explained(
        "Deleted against kept pairs (D_f)",
        "50 means that deleted pairs look to the model like pairs that were kept. Lower means that"
        " it takes them for unrelated.",
        _against_kept,
        1,
    ),
    "unseen_auc": Explained(
        "Deleted against never seen pairs (AUC)",
        "0.5 means that a deleted pair cannot be told from one that the model never saw. Above:"
        " still known. Far below: forgotten so strongly that this itself could mark it.",
        _by_side(
            0.5,
            {
                "at": "Deleted pairs cannot be told from never seen ones.",
                "above": "Deleted pairs still score above never seen ones: a trace remains.",
                "below": "Deleted pairs score below never seen ones, which could mark them as"
                " deleted. The aim 'decouple' accepts this.",
            },
        ),
        2,
    ),
    "mi_ratio": Explained(
        "Membership exposure, before / after (MI ratio)",
        "An attack guesses whether a pair was trained on. Above 1 means that deleted pairs are"
        " less exposed to it than before.",
        _by_side(
            1.0,
            {
                "above": "Deleted pairs are less exposed to the attack than before.",
                "at": "No change in exposure is shown.",
                "below": "Deleted pairs are more exposed to the attack than before.",
            },
        ),
        2,
    ),
    "mi_attack_auc": Explained(
        "Strength of the membership attack (AUC)",
        "0.5 means that the attack guesses no better than a coin, so that the MI ratio says little."
        " 1 means that it is always right.",
        _by_side(
            0.5,
            {
                "above": "The attack works better than guessing.",
                "at": "The attack is no better than guessing: the MI ratio says little here.",
                "below": "The attack is worse than guessing: the MI ratio says little here.",
            },
        ),
        2,
    ),
}
