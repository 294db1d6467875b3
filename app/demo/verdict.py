"""What the demo shows at its end, and whether what it shows held."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from app.demo.client import Json

MOST_D_F = 30.0
D_F_BEFORE = (40.0, 60.0)
MOST_LOSS = 2.0
_SHOWN = ("d_test", "d_f", "unseen_auc", "mi_ratio")


@dataclass(frozen=True)
class Figures:
    """The figures of one demo, as ``--json`` writes them; None where one could not be measured."""

    dataset: str
    family: str
    task: str
    method: str
    forget_pairs: int
    d_test_before: float | None
    d_test_after: float | None
    d_f_before: float | None
    d_f_after: float | None
    mi_ratio: float | None
    unseen_auc_after: float | None
    job_seconds: float
    checkpoint_sha256: str
    checkpoint_verified: bool
    certificate_verified: bool
    ledger_size: int

    def as_json(self) -> dict[str, Any]:
        """Return the figures by name."""
        return asdict(self)


def metric(metrics: Sequence[Json], name: str, moment: str) -> float | None:
    """Return a metric's value on the test pairs or this request's pairs, None without one."""
    for found in metrics:
        if (found["name"], found["moment"]) == (name, moment) and _is_main(found["subset"]):
            value: float | None = found["value"]
            return value
    return None


def _is_main(subset: str) -> bool:
    return subset in ("test", "forget")


def failures(figures: Figures) -> list[str]:
    """Return a sentence about each claim that did not hold.

    The claims about D_f are MultiDelete's: pairs forgotten by retraining look like unseen ones,
    which need not look unrelated.
    """
    found = []
    if not figures.checkpoint_verified:
        found.append("The downloaded checkpoint does not have the digests that the service states.")
    if not figures.certificate_verified:
        found.append("The certificate does not verify.")
    found += _quality(figures)
    if figures.method == "multidelete":
        found += _forgetting(figures)
    return found


def _quality(figures: Figures) -> list[str]:
    before, after = figures.d_test_before, figures.d_test_after
    if before is None or after is None:
        return ["The quality on test pairs was not measured."]
    if before - after <= MOST_LOSS:
        return []
    sentence = (
        f"The quality on test pairs fell by {before - after:.1f} points, from {before:.1f} to "
        f"{after:.1f}; at most {MOST_LOSS:.0f} are accepted."
    )
    return [sentence]


def _forgetting(figures: Figures) -> list[str]:
    before, after = figures.d_f_before, figures.d_f_after
    if before is None or after is None:
        return ["How deleted pairs compare with kept ones was not measured."]
    found = []
    low, high = D_F_BEFORE
    if not low <= before <= high:
        found.append(
            f"Before, deleted pairs did not look like kept ones: D_f was {before:.1f}, expected "
            f"between {low:.0f} and {high:.0f}."
        )
    if after > MOST_D_F:
        found.append(
            f"Deleted pairs still look related: D_f is {after:.1f}, at most {MOST_D_F:.0f} is "
            "accepted."
        )
    return found


def findings_table(findings: Sequence[Json]) -> Table:
    """Return the table of what was measured, with 95% intervals, and how each figure reads."""
    table = Table(title="Before and after, with 95% intervals", show_lines=True)
    for heading in ("What was measured", "Before", "After", "What it says"):
        table.add_column(heading, overflow="fold")
    for found in findings:
        if found["name"] in _SHOWN and _is_main(found["subset"]):
            cells = (found["title"], _text(found["before"]), _text(found["after"]))
            table.add_row(*cells, found["reading"])
    return table


def _text(measured: Mapping[str, Any] | None) -> str:
    return measured["text"] if measured else "-"


def facts_table(facts: Mapping[str, str]) -> Table:
    """Return a table of two columns: what, and the words for it."""
    table = Table(show_header=False, box=None, padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, words in facts.items():
        table.add_row(name, words)
    return table


def places(folder: Path, report: Path, certificate: Path, key: Path, head: Path) -> dict[str, str]:
    """Return the places of what was downloaded, and the command that verifies it again."""
    return {
        "Checkpoint": str(folder),
        "Report": str(report),
        "Certificate": str(certificate),
        "Verify again": f"lethe verify {certificate} --key {key} --head {head}",
    }
