"""Tables of one data set: what it is summed up by, and what is looked into on it alone."""

from collections.abc import Iterator, Sequence

from benchmarks.paper.grid import NOTHING, Grid, Quantity, Read, Table, name_of
from benchmarks.paper.plan import FEW
from benchmarks.paper.reads import (
    INTERVALS,
    PROBES,
    detail,
    in_points,
    labels,
    lost,
    median_score,
    metric,
    seconds_by_size,
    sizes,
    span,
    spent,
    utilities,
)
from benchmarks.paper.results import Column, Results

BY_LABEL = {
    "d_f": ("D_f", 1),
    "unseen_auc": ("AUC against the unseen", 3),
    "mi_ratio": ("MI ratio", 2),
}
ATTACKS = {
    "ulira_auc": ("AUC", 3),
    "ulira_tpr_at_1pct_fpr": ("TPR at 1% FPR", 1),
    "ulira_tpr_at_0.1pct_fpr": ("TPR at 0.1% FPR", 1),
}
GROUPS = {"deleted": "forget", "retained": "retained"}
_MEANINGS = {
    "deleted": "An AUC of 0.5, and a TPR as low as the FPR: what was deleted cannot be told.",
    "retained": "What stays can pay for what goes: more than the original's is a price of the deletion.",
}

Reads = Sequence[tuple[str, Read, int]]
"""Heading, what is read, and digits after the point."""


def summary(results: Results, column: Column, amount: str) -> Table:
    """Return what a reader of one data set looks for, in one table."""
    f1 = ("F1", metric(results, "f1", subset="test"), 1)
    reads = [
        ("D_test", metric(results, "d_test", subset="test"), 1),
        ("lost", lost(results), 1),
        *([f1] if _measured(results, column, amount, f1[1]) else []),
        ("D_f", metric(results, "d_f"), 1),
        ("AUC against the unseen", metric(results, "unseen_auc"), 3),
        ("MI ratio", metric(results, "mi_ratio"), 2),
        *_probed(results),
        ("seconds", spent(results, "method_seconds", 1.0), 0),
    ]
    title = f"{results.title(column)}, {amount} deleted"
    cells = results.select("main", column, amount=amount)
    note = (
        f"{sizes(results, cells, 'd_f')} deleted pairs; D_test on n = "
        f"{sizes(results, cells, 'd_test', 'test')}. "
        "`lost` is the points of D_test that each seed's original had more; F1 is on test pairs, of "
        "class 1 where there are two classes, else the mean over classes; the other columns are "
        f"explained at the tables below. {INTERVALS}"
    )
    return _table(_grid(results, "main", column, amount, reads), title, note)


def by_label(results: Results, column: Column, amount: str) -> Iterator[Table]:
    """Yield the deleted pairs of each label on their own, where pairs have labels."""
    reads = [
        (f"{words}: label {label}", detail(results, name, "per_label", label, "value"), digits)
        for name, (words, digits) in BY_LABEL.items()
        for label in labels(results, results.select("main", column, amount=amount))
    ]
    if reads:
        title = f"By label, {results.title(column)}, {amount} deleted"
        note = (
            "The deleted pairs of each label: D_f against the retained pairs of that label, the AUC "
            "against the unseen pairs of that label, and the MI ratio. A mean over labels can hide "
            f"that one was not forgotten. Deleted pairs by label: {_by_label(results, column, amount)}. "
            f"{INTERVALS}"
        )
        yield _table(_grid(results, "main", column, amount, reads), title, note)


def _by_label(results: Results, column: Column, amount: str) -> str:
    """Return how many deleted pairs each label has, over the seeds."""
    cells = results.select("main", column, amount=amount)
    found = []
    for label in labels(results, cells):
        read = detail(results, "d_f", "per_label", label, "n")
        found.append(f"{label}: {span(read(cell, 'after') for cell in cells)}")
    return ", ".join(found)


def attack(results: Results, column: Column, amount: str) -> Iterator[Table]:
    """Yield the attack on each pair, where reference models were trained for it."""
    if not _measured(results, column, amount, metric(results, "ulira_auc")):
        return
    for group in GROUPS:
        known = labels(results, results.select("main", column, amount=amount))
        by_label = [
            found
            for label in known
            for found in _attacked_of(results, group, label)
            if _measured(results, column, amount, found[1])
        ]
        reads = [*_attacked(results, group), *by_label]
        title = f"Attack on each of the {group} pairs, {results.title(column)}, {amount} deleted"
        note = (
            f"U-LiRA, which has reference models of the same procedure for each pair: {group} pairs "
            f"against pairs never seen. {_MEANINGS[group]} `over references`: not this one model is "
            "attacked but each reference with the others, which gives enough pairs for low rates and "
            f"is a figure of the procedure. TPR in points of 100. {INTERVALS}"
        )
        yield _table(_grid(results, "main", column, amount, reads), title, note)


def _attacked(results: Results, group: str) -> Iterator[tuple[str, Read, int]]:
    """Yield what the attack finds among the pairs of a group, on this model and over references."""
    for name, (words, digits) in ATTACKS.items():
        subset = GROUPS[group]
        pooled = detail(results, name, "on_references", "value", subset=subset)
        reads = {words: metric(results, name, subset=subset), f"{words}, over references": pooled}
        for heading, read in reads.items():
            yield heading, in_points(read) if "TPR" in words else read, digits


def _attacked_of(results: Results, group: str, label: str) -> Iterator[tuple[str, Read, int]]:
    """Yield the AUC on this model's pairs of a label, and the rate over references."""
    subset, rate = GROUPS[group], "ulira_tpr_at_1pct_fpr"
    own = detail(results, "ulira_auc", "per_label", label, "value", subset=subset)
    pooled = detail(results, rate, "on_references", "per_label", label, "value", subset=subset)
    yield f"AUC, label {label}", own, 3
    yield f"{ATTACKS[rate][0]}, over references, label {label}", in_points(pooled), 1


def ablation(results: Results, column: Column, amount: str) -> Table:
    """Return the paper's table 4 for one data set, with what its claims are read from."""
    utility = [
        (f"{direction} D_test".lstrip(), read, 1)
        for direction, read in utilities(results, column).items()
    ]
    reads = [
        *utility,
        ("lost", lost(results), 1),
        ("D_f", metric(results, "d_f"), 1),
        *_probed(results),
        ("median score of D_r", median_score(results, "retained"), 2),
    ]
    title = f"Table 4: without each part, {results.title(column)}, {amount} deleted"
    note = (
        "D_test and D_f as in table 2, probes as in table 5; `lost` is the points of D_test that each "
        "seed's original had more. The paper's claims: without MD D_f stays the original's, without "
        "MKR more is lost, without UKR the probes fall. Half of the retained pairs score above the median "
        f"score, told to the middle of a bin of 20. {INTERVALS}"
    )
    return _table(_grid(results, "ablation", column, amount, reads), title, note)


def mappings(results: Results, column: Column) -> Table:
    """Return what was chosen where the paper leaves a mapping open, beside what was not."""
    reads = [
        ("D_test", metric(results, "d_test", subset="test"), 1),
        ("lost", lost(results), 1),
        ("D_f", metric(results, "d_f"), 1),
        ("AUC against the unseen", metric(results, "unseen_auc"), 3),
        ("seconds", spent(results, "method_seconds", 1.0), 0),
    ]
    amount = results.amounts[0]
    title = f"Mappings that were chosen, and others: {results.title(column)}, {amount} deleted"
    note = (
        "A row with the method's name alone is what the method does by default; the others change "
        f"one choice. docs/paper_index.md has the reasons. {INTERVALS} At most {FEW} seeds."
    )
    return _table(_grid(results, "mappings", column, amount, reads), title, note)


def growth(results: Results, column: Column) -> Table:
    """Return what is behind the paper's figure 2: seconds by the number of deleted pairs."""
    times = seconds_by_size(results, column)
    counts = list(dict.fromkeys(pairs for means in times.values() for pairs in means))
    rows = [
        [name_of(row), *(means[pairs].text() if pairs in means else NOTHING for pairs in counts)]
        for row, means in times.items()
    ]
    title = f"Time against |D_f|: {results.title(column)}"
    note = f"Seconds of the method alone, by deleted pairs. {INTERVALS} At most {FEW} seeds."
    return Table(title, ["Method", *(f"{pairs:,} pairs" for pairs in counts)], rows, note)


def tradeoff(results: Results, column: Column) -> Table:
    """Return what each D_f that is asked for costs, and the other aim."""
    reads = [
        ("D_test", metric(results, "d_test", subset="test"), 1),
        ("D_f", metric(results, "d_f"), 1),
        ("AUC against the unseen", metric(results, "unseen_auc"), 3),
        ("MI ratio", metric(results, "mi_ratio"), 2),
    ]
    amount = results.amounts[0]
    title = f"Trade-off between the two aims: {results.title(column)}, {amount} deleted"
    note = (
        "`target` is the D_f that is enough; `calibrated` aims at 0.5 against the unseen. "
        f"{INTERVALS} At most {FEW} seeds."
    )
    return _table(_grid(results, "tradeoff", column, amount, reads), title, note)


def _probed(results: Results) -> Reads:
    return [(f"probe: {words}", metric(results, name), 1) for name, words in PROBES.items()]


def _measured(results: Results, column: Column, amount: str, read: Read) -> bool:
    cells = results.select("main", column, amount=amount)
    return any(read(cell, "after") is not None for cell in cells)


def _grid(results: Results, part: str, column: Column, amount: str, reads: Reads) -> Grid:
    quantities = [Quantity(heading, column, read, digits) for heading, read, digits in reads]
    return Grid(results, part, amount, quantities)


def _table(grid: Grid, title: str, note: str) -> Table:
    return Table(title, grid.headings, [grid.original(), *grid.rows()], note)
