"""A verification in plain words: what was checked, what is stated, what it cannot prove."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

METRIC_NAMES = {
    "d_test": "quality on the test pairs (D_test)",
    "d_f": "deleted against kept pairs (D_f; 50 = alike, lower = deleted pairs look unrelated)",
    "mi_ratio": "membership exposure before / after (MI ratio; above 1 = less exposed)",
    "unseen_auc": "deleted pairs against never seen ones (AUC; 0.5 = cannot be told apart)",
    "ulira_auc": "attack on each pair by reference models (U-LiRA, AUC; 0.5 = finds nothing)",
    "ulira_tpr_at_1pct_fpr": "share of pairs that this attack finds, wrong about 1 in 100 others"
    " (TPR at 1% FPR; guessing finds 0.01)",
    "ulira_tpr_at_0.1pct_fpr": "share of pairs that this attack finds, wrong about 1 in 1,000 others"
    " (TPR at 0.1% FPR; guessing finds 0.001)",
}

GUARANTEES = {
    "exact": "exact: the new version was made without the deleted pairs",
    "approximate": "approximate: the new version was changed by the method and then measured, and"
    " the figures say how far it forgot; it was not made anew without the pairs",
    "not_needed": "not needed: no registered version in use had learned from the pairs",
}

AIMS = {
    "decouple": "decouple, deleted pairs are to look unrelated to the model",
    "calibrated": "calibrated, deleted pairs are to look like pairs that the model never saw",
}

LIMITS = (
    (
        "That the service measured honestly. The signature shows that whoever holds the log's key"
        " states this, and cannot alter it later unseen."
    ),
    (
        "That no copy of the older weights is in use somewhere, or that a model which was never"
        " registered did not learn from the pairs."
    ),
    (
        "That nothing of the pairs can ever be recovered from the new weights. The figures are"
        " measurements with a margin of error, by the attacks that were run."
    ),
    (
        "That the clock of the service was right. The log fixes order and content; the times are"
        " the service's own word."
    ),
    (
        "That everybody is shown the same log. Compare tree heads with another party, or keep one"
        " and give it with --head next time."
    ),
    (
        "That the public key is the right one. Get it from the operator in a way that you trust,"
        " not from whoever hands you the certificate."
    ),
)

Status = Literal["passed", "failed", "unsettled", "not checked"]
_MARKS: dict[Status, str] = {
    "passed": "ok",
    "failed": "FAILED",
    "unsettled": "??",
    "not checked": "--",
}

Outcome = Literal["verified", "refused", "unsettled"]
EXIT_STATUS: dict[Outcome, int] = {"verified": 0, "refused": 1, "unsettled": 3}
"""How ``lethe verify`` ends; 2 where a file is not what it should be, or the options are wrong."""
_VERDICTS: dict[Outcome, str] = {
    "verified": "VERIFIED: the certificate is signed by this key and stands in its log.",
    "refused": "NOT VERIFIED: do not rely on this certificate. Nothing that it states is repeated"
    " here.",
    "unsettled": "PARTLY VERIFIED: the certificate itself is signed by this key and stands in its log."
    " Whether that log and your tree head agree, this file cannot show.",
}


@dataclass(frozen=True)
class Check:
    """One step of a verification: what was looked at, how it ended, and why in a sentence."""

    name: str
    status: Status
    sentence: str


@dataclass(frozen=True)
class VerificationReport:
    """How a verification ended.

    Attributes:
        outcome: ``unsettled`` where the certificate holds, and nothing shows whether its log and the
            given tree head agree.
        checks: in their order.
        statement: what the certificate states; None where it is refused.
    """

    outcome: Outcome
    checks: tuple[Check, ...]
    statement: Mapping[str, Any] | None = None

    @property
    def ok(self) -> bool:
        """Whether everything that was asked for was shown."""
        return self.outcome == "verified"

    @property
    def failure(self) -> str | None:
        """The sentence of the check that did not pass, if one did not."""
        open_ones = (one.sentence for one in self.checks if one.status in {"failed", "unsettled"})
        return next(open_ones, None)


def format_report(report: VerificationReport) -> str:
    """Return the report as text for a terminal, at most 90 columns wide."""
    lines = [*textwrap.wrap(_VERDICTS[report.outcome], 88), "", "What was checked"]
    for check in report.checks:
        lines += _wrapped(f"[{_MARKS[check.status]}] {check.name}: {check.sentence}")
    if report.statement is not None:
        lines += ["", "What the certificate states"]
        for sentence in describe(report.statement):
            lines += _wrapped(f"- {sentence}")
    lines += ["", "What a signature cannot prove"]
    for sentence in LIMITS:
        lines += _wrapped(f"- {sentence}")
    return "\n".join(lines) + "\n"


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, 88, initial_indent="  ", subsequent_indent="      ")


def describe(statement: Mapping[str, Any]) -> list[str]:
    """Return the sentences that say what a verified statement states."""
    said: Mapping[str, Any] = statement["predicate"]
    received = (
        f"Request {said['request_id']} on dataset {said['dataset_id']} was received at"
        f" {said['received_time']}, due by {said['deadline']}, and completed at"
        f" {said['completed_time']}."
    )
    before = said["already_forgotten_count"]
    known = f"{before} had been forgotten or asked for before, " if before else ""
    pairs = (
        f"It names {_count(said['pair_count'], 'pair')}; {known}{said['not_trained_count']} had never"
        f" been trained on. The pairs are committed to as {said['pairs_commitment']}."
    )
    method = (
        f"Scope: {said['scope']}. Objective: {AIMS.get(said['objective'], said['objective'])}. Method: {said['method']}"
        f" (update: {said['update']})."
    )
    sentences = [received, pairs, method, f"Guarantee: {GUARANTEES[said['guarantee']]}."]
    if said["earlier_requests"]:
        sentences.append(
            "Jobs of earlier requests that name some of the same pairs also ran on these versions or on"
            f" versions they were made from: {', '.join(said['earlier_requests'])}."
        )
    if asked := said.get("reference_models"):
        sentences.append(
            f"Asked for besides: an attack on each pair by {_count(asked, 'reference model')}."
        )
    for version in said["versions"]:
        sentences += _describe_version(version)
    if retired := said.get("retired_versions"):
        sentences.append(f"Retired, so out of use and left as they are: {', '.join(retired)}.")
    return sentences + [f"Limitation: {sentence}" for sentence in said["limitations"]]


def _describe_version(version: Mapping[str, Any]) -> list[str]:
    first = (
        f"Version {version['version_id']}, made from {version['input_version_id']}, has checkpoint"
        f" SHA-256 {version['checkpoint_sha256']}."
    )
    if not version.get("made_for_request", True):
        first += f" It had forgotten the pairs already, by method {version.get('method')}."
    first += _forgotten_in(version)
    if made := version.get("reference_models"):
        first += f" Each pair was attacked by {_count(made, 'reference model')}."
    return [first, *(_describe_metric(metric) for metric in version["metrics"])]


def _forgotten_in(version: Mapping[str, Any]) -> str:
    """Say where the request's pairs were forgotten, unless it was all in the version itself."""
    parts = version.get("forgotten_in", [])
    if [part["version_id"] for part in parts] in ([], [version["version_id"]]):
        return ""
    said = ", ".join(f"{part['pair_count']} in {part['version_id']}" for part in parts)
    return (
        f" Of the request's training pairs were forgotten, or left out of the training: {said}. The"
        " figures on all pairs that the version has forgotten have all of them among theirs."
    )


def _describe_metric(metric: Mapping[str, Any]) -> str:
    name = METRIC_NAMES.get(metric["name"], metric["name"])
    label = f"{name}, {metric['moment']}, {subset_name(metric['subset'])}"
    if metric["value"] is None:
        return f"{label}: not available, because {metric['unavailable']}"
    text = f"{label}: {metric['value']:.4g} {metric['unit']}".rstrip()
    if metric["interval"] is not None:
        low, high = metric["interval"]
        text += f" (95% interval {low:.4g} to {high:.4g})"
    return f"{text}, n = {metric['n']}."


def subset_name(subset: str) -> str:
    """Return in words which pairs a metric was measured on."""
    names = {
        "test": "on the test pairs",
        "val": "on the validation pairs",
        "retained": "on retained pairs",
        "forget": "on the pairs of this job",
        "forgotten": "on all pairs that the version has forgotten",
    }
    return names.get(subset, f"on the pairs of {subset.removeprefix('request:')}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
