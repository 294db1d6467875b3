"""What each figure means: title, explanation, and how its outcome reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.audit.schemas import Measured, MetricOut
from app.audit.sentences import (
    Reading,
    against_granted,
    against_kept,
    against_unseen,
    by_change,
    by_side,
    counted,
)


@dataclass(frozen=True)
class Explained:
    """How one metric is shown.

    Attributes:
        title, meaning: what it is called, and what it tells.
        reading: makes a sentence of an outcome.
        decimals: of its values.
        counted: it is a count, and has a unit instead of a margin of error.
        optional: a report leaves it out where it could not be measured.
        beside: details of it that its text tells, too, and how.
    """

    title: str
    meaning: str
    reading: Reading
    decimals: int
    counted: bool = False
    optional: bool = False
    beside: Mapping[str, str] = field(default_factory=dict)


def measured(metric: MetricOut) -> Measured:
    """Return the value with its margin of error, in figures and as text."""
    found = figure(
        metric.name, metric.value, metric.interval, metric.n, metric.unavailable, metric.unit
    )
    explained = METRICS.get(metric.name)
    told = explained.beside if explained and metric.value is not None else {}
    beside = ", ".join(
        f"{metric.details[key]:.1f} {words}" for key, words in told.items() if key in metric.details
    )
    return found.model_copy(update={"text": f"{found.text} ({beside})"}) if beside else found


def figure(
    name: str,
    value: float | None,
    interval: tuple[float, float] | None,
    n: int,
    unavailable: str | None,
    unit: str = "",
) -> Measured:
    """Return a figure of the metric ``name``; its text has the decimals that the metric has."""
    explained = METRICS.get(name)
    decimals = explained.decimals if explained else 3
    if value is None:
        text = f"not available: {unavailable}"
    elif explained is not None and explained.counted:
        text = f"{value:,.{decimals}f} {unit}".rstrip()
    elif interval is None:
        text = f"{value:.{decimals}f} (no interval: too few pairs)"
    else:
        text = f"{value:.{decimals}f} ({interval[0]:.{decimals}f} to {interval[1]:.{decimals}f})"
    reason = unavailable if value is None else None
    return Measured(value=value, interval=interval, n=n, unavailable=reason, text=text)


def reading_of(
    name: str, before: Measured | None, after: Measured | None, aim: str = "decouple"
) -> str:
    """Return how the outcome of a metric reads, or that it is not explained here."""
    explained = METRICS.get(name)
    if explained is None:
        return "See the metric's definition."
    return explained.reading(before, after, aim)


def _recall(what: str, found: str, depth: int) -> Explained:
    return Explained(
        f"{what} within the first {depth}" if depth > 1 else f"{what} in first place",
        f"Of all test queries, how many in 100 find {found} among the first {depth} answers.",
        by_change("This share"),
        1,
    )


METRICS: dict[str, Explained] = {
    "d_test": Explained(
        "Quality on test pairs (D_test)",
        "How well the model does its task on held-out pairs, in points of 100. It should stay"
        " about where it was.",
        by_change("Quality on pairs that nobody asked to delete"),
        1,
    ),
    "f1": Explained(
        "Quality on test pairs, rare answers counted fully (F1)",
        "Like the quality above, but a model that always gives the most common answer scores low."
        " In points of 100.",
        by_change("Quality on rare answers"),
        1,
    ),
    **{
        f"{direction}_r{depth}": _recall(what, found, depth)
        for direction, what, found in (
            ("ir", "Image found for its text", "the right image"),
            ("tr", "Text found for its image", "a right text"),
        )
        for depth in (1, 5, 10)
    },
    "utility_excess": Explained(
        "Quality lost beyond what was granted",
        "While it forgets, the method watches its quality on validation pairs, and keeps a state that lost"
        " no more of it than the request grants (the parameter utility_drop, and a standard error for"
        " chance), where there is one and the last state is not asked for. 0 means that no more was lost.",
        against_granted,
        1,
        counted=True,
        beside={"lost": "lost", "granted": "granted", "standard_error": "for chance"},
    ),
    "d_f": Explained(
        "Deleted against kept pairs (D_f)",
        "50 means that deleted pairs look to the model like pairs that were kept. Lower means that"
        " it takes them for unrelated.",
        against_kept,
        1,
    ),
    "unseen_auc": Explained(
        "Deleted against never seen pairs (AUC)",
        "0.5 means that a deleted pair cannot be told from one that the model never saw. Above:"
        " still known. Far below: forgotten so strongly that this itself could mark it.",
        against_unseen,
        2,
    ),
    "forget_accuracy": Explained(
        "Deleted pairs that still get their own answer",
        "For how many in 100 deleted pairs the model still gives the right answer. Some are right"
        " by chance, since an unrelated pair often has the same answer: compare the answers one by"
        " one.",
        by_change("The share of deleted pairs that get their own answer"),
        1,
        optional=True,
    ),
    "mi_ratio": Explained(
        "Membership exposure, before / after (MI ratio)",
        "An attack guesses whether a pair was trained on. Above 1 means that deleted pairs are"
        " less exposed to it than before.",
        by_side(
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
        by_side(
            0.5,
            {
                "above": "The attack works better than guessing.",
                "at": "The attack is no better than guessing: the MI ratio says little here.",
                "below": "The attack is worse than guessing: the MI ratio says little here.",
            },
        ),
        2,
    ),
    "mi_tpr_at_1pct_fpr": Explained(
        "Training pairs that the membership attack is sure of",
        "The share of training pairs that the attack finds when it may be wrong about 1 in 100"
        " others. Guessing finds 0.01.",
        by_side(
            0.01,
            {
                "above": "Some training pairs can be named with few mistakes.",
                "at": "The attack names training pairs no better than guessing.",
                "below": "The attack names training pairs no better than guessing.",
            },
        ),
        3,
    ),
    "ulira_auc": Explained(
        "Attack on each pair by comparison models (U-LiRA, AUC)",
        "The stronger attack: models that learned a pair, and models that never had it, show for"
        " each pair how it should score. 0.5 means that learned pairs cannot be told from pairs"
        " that were never there. It is made on request only, and with few models it is weak.",
        by_side(
            0.5,
            {
                "above": "The attack tells these pairs from pairs that were never there.",
                "at": "The attack does not tell these pairs from pairs that were never there.",
                "below": "The attack is worse than guessing: it says little here.",
            },
        ),
        2,
    ),
    **{
        f"ulira_tpr_at_{rate}pct_fpr": Explained(
            f"Pairs that this attack is sure of, wrong about 1 in {others:,} (TPR at {rate}% FPR)",
            f"The share of these pairs that the attack on each pair finds when it may be wrong"
            f" about 1 in {others:,} pairs that were never there. Guessing finds {1 / others:g}.",
            by_side(
                1 / others,
                {
                    "above": "Some of these pairs can be named with few mistakes.",
                    "at": "The attack names these pairs no better than guessing.",
                    "below": "The attack names these pairs no better than guessing.",
                },
            ),
            4,
            optional=True,
        )
        for rate, others in (("1", 100), ("0.1", 1000))
    },
    **{
        name: Explained(
            f"Use of {what} alone",
            f"How much a simple classifier learns from what the model knows of {what}, without its"
            " other half: right answers in 100 on deleted pairs. Where only the association is to"
            " be forgotten, it should stay about where it was.",
            by_change(f"What the model knows of {what} alone"),
            1,
        )
        for name, what in (
            ("probe_item", "an image or graph"),
            ("probe_text", "a text"),
        )
    },
    "method_seconds": Explained(
        "Time of the method",
        "Seconds that the method itself took, without loading, measuring and saving.",
        counted("The method took {}."),
        1,
        counted=True,
    ),
    "peak_memory_bytes": Explained(
        "Memory",
        "The most memory that the job held at any time.",
        counted("The job held up to {}."),
        0,
        counted=True,
    ),
    "trained_parameters": Explained(
        "Weights that could change",
        "Numbers in the model that the method was allowed to change.",
        counted("The method could change {}."),
        0,
        counted=True,
    ),
    "samples_seen": Explained(
        "Pairs processed",
        "Pairs that the method went through, each counted as often as it came.",
        counted("The method went through {}."),
        0,
        counted=True,
    ),
}
"""In the order of a report."""
