"""How an outcome reads, in sentences for people who are no engineers.

A sentence never claims more than the interval does: where 50, 0.5 or 1 lies inside of it, it says
that no difference is shown.
"""

from collections.abc import Callable, Mapping

from app.audit.schemas import Measured

UNRELATED = 30.0
"""D_f whose whole interval lies at or below this is read as: the pairs look unrelated."""
STILL = 0.05
"""Points below which a change is none."""

Reading = Callable[[Measured | None, Measured | None, str], str]
"""(before, after, aim) to a sentence."""


def side_of(found: Measured | None, middle: float) -> str:
    """Say where ``found`` lies: above, below or at ``middle``; unknown without an interval."""
    if found is None or found.value is None or found.interval is None:
        return "unknown"
    low, high = found.interval
    if low > middle:
        return "above"
    return "below" if high < middle else "at"


def by_side(middle: float, sentences: Mapping[str, str]) -> Reading:
    """Return a reading with a sentence for ``above``, ``at`` and ``below`` the middle."""

    def read(_before: Measured | None, after: Measured | None, _aim: str) -> str:
        side = side_of(after, middle)
        return sentences[side] if side != "unknown" else without_interval(after)

    return read


def by_change(what: str) -> Reading:
    """Return a reading of how many points ``what`` (singular) gained or lost."""

    def read(before: Measured | None, after: Measured | None, _aim: str) -> str:
        if after is None or after.value is None:
            return without_interval(after)
        if before is None or before.value is None:
            return "There is no figure from before to compare it with."
        change = after.value - before.value
        moved = "did not change" if abs(change) < STILL else f"changed by {change:+.1f} points"
        margin = ", within the margin of error" if _overlap(before, after) else ""
        caution = "" if after.interval else f" {without_interval(after)}"
        return f"{what} {moved}{margin}.{caution}"

    return read


def counted(sentence: str) -> Reading:
    """Return a reading of a figure that is counted and has no margin; ``{}`` stands for it."""

    def read(_before: Measured | None, after: Measured | None, _aim: str) -> str:
        if after is None or after.value is None:
            return without_interval(after)
        return sentence.format(after.text)

    return read


def without_interval(found: Measured | None) -> str:
    """Say what a figure without an interval is good for."""
    if found is None:
        return "It was not measured afterwards."
    if found.value is None:
        return "It could not be measured, so nothing can be said."
    return "Too few pairs for a margin of error: take this figure as an indication only."


def against_kept(before: Measured | None, after: Measured | None, aim: str) -> str:
    """Read D_f: where the deleted pairs stand among kept ones."""
    sentence = _against_kept(before, after)
    measured = after is not None and after.interval is not None
    if aim == "calibrated" and measured:
        return f"{sentence} The aim 'calibrated' is judged against never seen pairs, not here."
    return sentence


def _against_kept(before: Measured | None, after: Measured | None) -> str:
    if before is not None and after is not None and _overlap(before, after):
        return "The change is not larger than the margin of error: no forgetting is shown."
    sentences = {
        "below": "The model now takes deleted pairs for less related than kept ones.",
        "at": "Deleted pairs cannot be told from kept ones: no forgetting is shown.",
        "above": "Deleted pairs score above kept ones: they are not forgotten.",
        "unknown": without_interval(after),
    }
    sentence = sentences[side_of(after, 50.0)]
    if after is not None and after.interval is not None and after.interval[1] <= UNRELATED:
        sentence = "Deleted pairs now look unrelated to the model."
    if side_of(before, 50.0) == "at" and side_of(after, 50.0) == "below":
        return f"Before, they looked like kept pairs. {sentence}"
    return sentence


def against_unseen(_before: Measured | None, after: Measured | None, aim: str) -> str:
    """Read the AUC against never seen pairs, which is what the aim ``calibrated`` is about."""
    judged = {
        "decouple": {"below": " The aim 'decouple' accepts this."},
        "calibrated": {
            "at": " This is the aim 'calibrated'.",
            "above": " The aim 'calibrated' was missed.",
            "below": " The aim 'calibrated' was missed.",
        },
    }
    sentences = {
        "at": "Deleted pairs cannot be told from never seen ones.",
        "above": "Deleted pairs still score above never seen ones: a trace remains.",
        "below": "Deleted pairs score below never seen ones, which could mark them as deleted.",
        "unknown": without_interval(after),
    }
    side = side_of(after, 0.5)
    return sentences[side] + judged.get(aim, {}).get(side, "")


def against_granted(_before: Measured | None, after: Measured | None, _aim: str) -> str:
    """Read how much more of its quality the kept state lost than it was granted."""
    if after is None or after.value is None:
        return without_interval(after)
    if after.value < STILL:
        return "No more was lost than was granted."
    return (
        f"More was lost than was granted: {after.text}. Unless the last state was asked for (keep), none "
        "that was tried stayed within it. Where that is too much, unlearn with other parameters or with "
        "the method retrain."
    )


def _overlap(one: Measured, other: Measured) -> bool:
    """Say whether two intervals have a value in common; without both, that they do not."""
    if one.interval is None or other.interval is None:
        return False
    return one.interval[0] <= other.interval[1] and other.interval[0] <= one.interval[1]
