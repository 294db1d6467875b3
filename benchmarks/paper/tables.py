"""The paper's tables 2 to 5 from what was measured, and tables of what it leaves out."""

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.paper.grid import Grid, Quantity, Read, Table, name_of
from benchmarks.paper.reads import (
    INTERVALS,
    PROBES,
    in_points,
    lost,
    metric,
    seconds_by_size,
    spent,
    utilities,
)
from benchmarks.paper.results import Column, Results
from benchmarks.paper.sequence import sequence
from benchmarks.paper.single import ablation, attack, by_label, growth, mappings, summary, tradeoff
from benchmarks.paper.variants import WITHOUT_UKR

KILO, MEGA = 1e3, 1e6
Columns = Sequence[Column]


def tables(results: Results) -> Iterator[Table]:
    """Yield every table that there are cells for."""
    amounts = results.amounts if results.rows("main") else []
    for column in results.columns:
        asked = [amount for amount in amounts if results.select("main", column, amount=amount)]
        yield from (summary(results, column, amount) for amount in asked)
    for columns in results.lineups():
        for amount in amounts:
            yield from _main(results, columns, amount)
        yield from _ablations(results, columns)
    for column in results.columns:
        if any(results.run(cell) for cell in results.select("mappings", column)):
            yield mappings(results, column)
        if seconds_by_size(results, column):
            yield growth(results, column)
        if any(results.run(cell) for cell in results.select("tradeoff", column)):
            yield tradeoff(results, column)
        if any(results.run(cell) for cell in results.select("sequence", column)):
            yield sequence(results, column)


def absences(results: Results) -> list[str]:
    """Return a sentence for each reason why rows of a column have no value.

    What depends on the run names amounts and seeds as well.
    """
    found: dict[tuple[str, str, str], dict[str, dict[str, list[int]]]] = {}
    for cell, status, reason in results.reasons():
        column = results.title((cell["preset"], cell["family"]))
        rows = found.setdefault((column, status, reason), {})
        seeds = rows.setdefault(name_of(cell["row"]), {}).setdefault(cell["amount"], [])
        seeds.append(cell["seed"])
    return [
        f"- {column}: {', '.join(_absent(row, status, rows[row]) for row in rows)}: {status}: {reason}"
        for (column, status, reason), rows in found.items()
    ]


def _absent(row: str, status: str, seeds: Mapping[str, Sequence[int]]) -> str:
    if status == "not applicable":
        return row
    runs = [
        f"{amount} deleted, seed{'s' * (len(set(of)) > 1)} {', '.join(map(str, sorted(set(of))))}"
        for amount, of in seeds.items()
    ]
    return f"{row} ({'; '.join(runs)})"


def _ablations(results: Results, columns: Columns) -> Iterator[Table]:
    for amount in results.amounts:
        for column in columns:
            if results.select("ablation", column, amount=amount):
                yield ablation(results, column, amount)


def _main(results: Results, columns: Columns, amount: str) -> Iterator[Table]:
    """Yield what all methods are compared by."""
    yield _utility_and_forgetting(results, columns, amount)
    yield _validation(results, columns, amount)
    yield _membership(results, columns, amount)
    yield _attack(results, columns, amount)
    yield _probes(results, columns, amount)
    for column in columns:
        yield from by_label(results, column, amount)
    yield _unseen(results, columns, amount)
    for column in columns:
        yield from attack(results, column, amount)
    yield _cost(results, columns, amount)


def _utility_and_forgetting(results: Results, columns: Columns, amount: str) -> Table:
    quantities = [q for column in columns for q in _both(results, column)]
    grid = Grid(results, "main", amount, quantities)
    note = (
        "D_test: higher is better; mean of R@1, R@5 and R@10 for IR and TR, else accuracy. D_f: "
        "100 (1 - AUC) of deleted against retained pairs, lower is better; IR and TR share one "
        "pair score, and so D_f, which counts in the average once for each of them. "
        f"{INTERVALS}"
    )
    title = f"Table 2: D_test and D_f, {amount} deleted"
    return Table(title, grid.headings, [grid.original(), *grid.rows()], note)


def _both(results: Results, column: Column) -> Iterator[Quantity]:
    """Yield D_test and D_f of a data set, for each direction where it has two."""
    forgetting = metric(results, "d_f")
    for direction, utility in utilities(results, column).items():
        heading = f"{results.title(column)} {direction}".rstrip()
        yield Quantity(f"{heading} D_test", column, utility, mean="D_test")
        yield Quantity(f"{heading} D_f", column, forgetting, mean="D_f")


def _validation(results: Results, columns: Columns, amount: str) -> Table:
    """Return the utility that settings are chosen by: that of test pairs is for those that are chosen."""
    reads = (
        ("D_test", metric(results, "d_test", subset="val"), 1),
        ("lost", lost(results, "val"), 1),
    )
    quantities = _of_each(results, columns, reads)
    grid = Grid(results, "main", amount, quantities)
    note = (
        "D_test of validation pairs, and the points that each seed's original had more: settings are "
        "chosen by these, and methods choose their epoch by them. MultiDelete holds half of these pairs in "
        f"place, so that its loss is told too low beside that of others. {INTERVALS}"
    )
    title = f"On validation pairs, {amount} deleted"
    return Table(title, grid.headings, [grid.original(), *grid.rows()], note)


def _of_each(
    results: Results, columns: Columns, reads: Sequence[tuple[str, Read, int]]
) -> list[Quantity]:
    """Return the same columns for each data set: heading, what is read, and digits after the point."""
    return [
        Quantity(f"{results.title(column)}, {words}", column, read, digits)
        for column in columns
        for words, read, digits in reads
    ]


def _membership(results: Results, columns: Columns, amount: str) -> Table:
    read = metric(results, "mi_ratio")
    quantities = [Quantity(results.title(c), c, read, 2, "ratio") for c in columns]
    grid = Grid(results, "main", amount, quantities)
    note = (
        "Mean probability of membership of D_f before, divided by the one after: above 1 is less "
        f"exposed. IR and TR share one output distribution. {INTERVALS}"
    )
    title = f"Table 3: membership inference ratio, {amount} deleted"
    return Table(title, grid.headings, grid.rows(), note)


def _attack(results: Results, columns: Columns, amount: str) -> Table:
    """Return how well the attack behind table 3 tells members at all: a ratio alone does not say."""
    reads = (
        ("AUC", metric(results, "mi_attack_auc"), 3),
        ("TPR at 1% FPR", in_points(metric(results, "mi_tpr_at_1pct_fpr")), 1),
    )
    quantities = _of_each(results, columns, reads)
    grid = Grid(results, "main", amount, quantities)
    note = (
        "The attack of table 3 on retained pairs, which it was not fitted on, against validation pairs: "
        "an AUC of 0.5 says that its probabilities mean nothing. TPR in points of 100. "
        f"{INTERVALS}"
    )
    title = f"The attack behind the ratio, {amount} deleted"
    return Table(title, grid.headings, [grid.original(), *grid.rows()], note)


def _probes(results: Results, columns: Columns, amount: str) -> Table:
    """Lay methods out as columns, as the paper does."""
    reads = [(words, metric(results, name), 1) for name, words in PROBES.items()]
    quantities = _of_each(results, columns, reads)
    grid = Grid(results, "main", amount, quantities)
    ablated = _without_ukr(results, amount, quantities)
    headings, *rows = zip(grid.headings, grid.original(), *grid.rows(), *ablated, strict=True)
    note = (
        "Accuracy on D_f of linear probes that were trained on unimodal embeddings of D_r. Best is "
        f"what the original has. {INTERVALS}"
    )
    if ablated:
        note += (
            f" `{WITHOUT_UKR}` is MultiDelete without UKR, of the part ablation, which has "
            f"{results.seeds('ablation')} of {results.seeds('main')} seed(s): the full model and the "
            "original of the same seeds stand in table 4."
        )
    title = f"Table 5: unimodal knowledge, {amount} deleted"
    return Table(title, ["Accuracy", *headings[1:]], rows, note)


def _without_ukr(results: Results, amount: str, quantities: Sequence[Quantity]) -> list[list[str]]:
    """Return the row of the ablation that the paper has in its table 5 too, where there is one."""
    grid = Grid(results, "ablation", amount, quantities)
    return [row for row in grid.rows() if row[0] == WITHOUT_UKR]


def _unseen(results: Results, columns: Columns, amount: str) -> Table:
    read = metric(results, "unseen_auc")
    quantities = [Quantity(results.title(c), c, read, 3) for c in columns]
    grid = Grid(results, "main", amount, quantities)
    note = (
        "AUC of deleted pairs against pairs that the model never saw. 0.5: they cannot be told "
        "apart; above: still known; far below: over-forgotten, which marks them as deleted. "
        f"{INTERVALS}"
    )
    title = f"Against the unseen, {amount} deleted"
    return Table(title, grid.headings, [grid.original(), *grid.rows()], note)


def _cost(results: Results, columns: Columns, amount: str) -> Table:
    quantities = [
        Quantity(f"{results.title(column)} {words}", column, spent(results, name, unit), decimals)
        for column in columns
        for name, words, unit, decimals in (
            ("method_seconds", "s", 1.0, 1),
            ("trained_parameters", "M parameters", MEGA, 2),
            ("peak_memory_bytes", "MB", MEGA, 0),
            ("samples_seen", "thousand pairs seen", KILO, 1),
        )
    ]
    grid = Grid(results, "main", amount, quantities)
    note = (
        "Seconds of the method alone, parameters that it can change, highest memory of the process "
        "(of the GPU where there is one), and pairs that its steps took, each as often as it was taken. "
        f"{INTERVALS}"
    )
    return Table(f"Cost, {amount} deleted", grid.headings, grid.rows(), note)
