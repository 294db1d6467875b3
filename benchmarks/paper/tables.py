"""The paper's tables 2 to 5 from what was measured, and tables of what it leaves out."""

from collections.abc import Iterator, Sequence

from benchmarks.paper.grid import NOTHING, Grid, Quantity, Read, Table, name_of
from benchmarks.paper.plan import AT_ONCE, FINAL
from benchmarks.paper.results import Column, Json, Results

DIRECTIONS = {"ir": "IR", "tr": "TR"}
DEPTHS = (1, 5, 10)
PROBES = {"probe_item": "image or graph", "probe_text": "text"}
ATTACKS = {
    "ulira_auc": ("AUC", 3),
    "ulira_tpr_at_1pct_fpr": ("TPR at 1% FPR", 1),
    "ulira_tpr_at_0.1pct_fpr": ("TPR at 0.1% FPR", 1),
}
MEGA = 1e6
Columns = Sequence[Column]
INTERVALS = "Means over seeds with 95% t-intervals."


def tables(results: Results) -> Iterator[Table]:
    """Yield every table that there are cells for."""
    for column in results.columns:
        for amount in results.amounts if results.rows("main") else ():
            yield _summary(results, column, amount)
    for columns in results.lineups():
        for amount in results.amounts if results.rows("main") else ():
            yield _utility_and_forgetting(results, columns, amount)
            yield _membership(results, columns, amount)
            yield _probes(results, columns, amount)
            yield from _by_label(results, columns, amount)
            yield _unseen(results, columns, amount)
            yield from _attack(results, columns, amount)
            yield _cost(results, columns, amount)
        for amount in results.amounts if results.rows("ablation") else ():
            yield _ablation(results, columns, amount)
    for column in results.columns:
        if any(results.run(cell) for cell in results.select("tradeoff", column)):
            yield _tradeoff(results, column)
        if any(results.run(cell) for cell in results.select("sequence", column)):
            yield _sequence(results, column)


def absences(results: Results) -> list[str]:
    """Return a sentence for each reason why rows of a column have no value."""
    found: dict[tuple[str, str, str], dict[str, None]] = {}
    for cell, status, reason in results.reasons():
        column = results.title((cell["preset"], cell["family"]))
        found.setdefault((column, status, reason), {})[name_of(cell["row"])] = None
    return [
        f"- {column}: {', '.join(rows)}: {status}: {reason}"
        for (column, status, reason), rows in found.items()
    ]


def _summary(results: Results, column: Column, amount: str) -> Table:
    """What a reader of one data set looks for, in one table."""
    reads = [
        ("D_test", _metric(results, "d_test", subset="test"), 1),
        ("lost", _lost(results), 1),
        ("D_f", _metric(results, "d_f"), 1),
        ("AUC against the unseen", _metric(results, "unseen_auc"), 3),
        ("MI ratio", _metric(results, "mi_ratio"), 2),
        *((f"probe: {words}", _metric(results, name), 1) for name, words in PROBES.items()),
        ("seconds", _spent(results, "method_seconds", 1.0), 0),
    ]
    quantities = [Quantity(heading, column, read, digits) for heading, read, digits in reads]
    grid = Grid(results, "main", amount, quantities)
    title = f"{results.title(column)}, {amount} deleted"
    note = (
        "`lost` is the points of D_test that each seed's original had more; the other columns are "
        f"explained at the tables below. {INTERVALS}"
    )
    return Table(title, grid.headings, [grid.original(), *grid.rows()], note)


def _lost(results: Results) -> Read:
    """Read how much D_test fell: the originals differ more from seed to seed than methods do."""

    def read(cell: Json, moment: str) -> float | None:
        before, after = (results.value(cell, "d_test", m, "test") for m in ("before", "after"))
        known = moment == "after" and before is not None and after is not None
        return before - after if known else None

    return read


def _utility_and_forgetting(results: Results, columns: Columns, amount: str) -> Table:
    quantities = [q for column in columns for q in _both(results, column)]
    grid = Grid(results, "main", amount, quantities)
    note = (
        "D_test: higher is better; mean of R@1, R@5 and R@10 for IR and TR, else accuracy. D_f: "
        "100 (1 - AUC) of deleted against retained pairs, lower is better; IR and TR share one "
        f"pair score, and so D_f. {INTERVALS}"
    )
    title = f"Table 2: D_test and D_f, {amount} deleted"
    return Table(title, grid.headings, [grid.original(), *grid.rows()], note)


def _both(results: Results, column: Column) -> Iterator[Quantity]:
    """Yield D_test and D_f of a data set, for each direction where it has two."""
    title = results.title(column)
    forgetting = _metric(results, "d_f")
    cells = results.select("main", column) + results.select("ablation", column)
    if any(results.metric(cell, "ir_r1", subset="test") for cell in cells):
        for short, direction in DIRECTIONS.items():
            heading = f"{title} {direction}"
            recalls = _recalls(results, short)
            yield Quantity(f"{heading} D_test", column, recalls, mean="D_test")
            yield Quantity(f"{heading} D_f", column, forgetting, mean="D_f")
        return
    utility = _metric(results, "d_test", subset="test")
    yield Quantity(f"{title} D_test", column, utility, mean="D_test")
    yield Quantity(f"{title} D_f", column, forgetting, mean="D_f")


def _metric(results: Results, name: str, *, subset: str = "forget") -> Read:
    return lambda cell, moment: results.value(cell, name, moment, subset)


def _recalls(results: Results, direction: str) -> Read:
    """Read the mean recall of one direction, in points."""

    def read(cell: Json, moment: str) -> float | None:
        names = [f"{direction}_r{depth}" for depth in DEPTHS]
        found = [results.value(cell, name, moment, "test") for name in names]
        known = [value for value in found if value is not None]
        return sum(known) / len(known) if len(known) == len(names) else None

    return read


def _membership(results: Results, columns: Columns, amount: str) -> Table:
    read = _metric(results, "mi_ratio")
    quantities = [Quantity(results.title(c), c, read, 2, "ratio") for c in columns]
    grid = Grid(results, "main", amount, quantities)
    note = (
        "Mean probability of membership of D_f before, divided by the one after: above 1 is less "
        f"exposed. IR and TR share one output distribution. {INTERVALS}"
    )
    title = f"Table 3: membership inference ratio, {amount} deleted"
    return Table(title, grid.headings, grid.rows(), note)


def _probes(results: Results, columns: Columns, amount: str) -> Table:
    """Lay methods out as columns, as the paper does."""
    quantities = [
        Quantity(f"{results.title(column)}, {words}", column, _metric(results, name))
        for column in columns
        for name, words in PROBES.items()
    ]
    grid = Grid(results, "main", amount, quantities)
    headings, *rows = zip(grid.headings, grid.original(), *grid.rows(), strict=True)
    note = (
        "Accuracy on D_f of linear probes that were trained on unimodal embeddings of D_r. Best is "
        f"what the original has. {INTERVALS}"
    )
    title = f"Table 5: unimodal knowledge, {amount} deleted"
    return Table(title, ["Accuracy", *headings[1:]], rows, note)


def _by_label(results: Results, columns: Columns, amount: str) -> Iterator[Table]:
    """D_f of each label's deleted pairs against the retained pairs of that label."""
    for column in columns:
        cells = results.select("main", column, amount=amount)
        labels = sorted({label for cell in cells for label in _labels(results, cell, "after")})
        quantities = [
            Quantity(f"label {label}", column, _label_reader(results, label)) for label in labels
        ]
        if quantities:
            grid = Grid(results, "main", amount, quantities)
            note = (
                "D_f of the deleted pairs of each label against the retained pairs of that label: a "
                f"mean over labels can hide that one was not forgotten. {INTERVALS}"
            )
            title = f"D_f by label, {results.title(column)}, {amount} deleted"
            yield Table(title, grid.headings, [grid.original(), *grid.rows()], note)


def _labels(results: Results, cell: Json, moment: str) -> dict[str, Json]:
    metric = results.metric(cell, "d_f", moment)
    found: dict[str, Json] = (
        {} if metric is None else metric.get("details", {}).get("per_label", {})
    )
    return found


def _label_reader(results: Results, label: str) -> Read:
    def read(cell: Json, moment: str) -> float | None:
        found = _labels(results, cell, moment).get(label, {}).get("value")
        return None if found is None else float(found)

    return read


def _unseen(results: Results, columns: Columns, amount: str) -> Table:
    read = _metric(results, "unseen_auc")
    quantities = [Quantity(results.title(c), c, read, 3) for c in columns]
    grid = Grid(results, "main", amount, quantities)
    note = (
        "AUC of deleted pairs against pairs that the model never saw. 0.5: they cannot be told "
        "apart; above: still known; far below: over-forgotten, which marks them as deleted. "
        f"{INTERVALS}"
    )
    title = f"Against the unseen, {amount} deleted"
    return Table(title, grid.headings, [grid.original(), *grid.rows()], note)


def _attack(results: Results, columns: Columns, amount: str) -> Iterator[Table]:
    """The attack on each pair, where reference models were trained for it."""
    quantities = [
        Quantity(f"{results.title(column)}, {group}: {words}", column, read, decimals)
        for column in columns
        for group, subset in (("deleted", "forget"), ("retained", "retained"))
        for name, (words, decimals) in ATTACKS.items()
        for read in [_metric(results, name, subset=subset)]
        if any(read(cell, "after") is not None for cell in results.select("main", column))
    ]
    if quantities:
        grid = Grid(results, "main", amount, quantities)
        note = (
            "U-LiRA, which has reference models of the same procedure for each pair: deleted, and "
            "retained, pairs against pairs never seen. An AUC of 0.5, and a TPR as low as the FPR: "
            f"what was deleted cannot be told. TPR in points of 100. {INTERVALS}"
        )
        title = f"Attack on each pair, {amount} deleted"
        yield Table(title, grid.headings, [grid.original(), *grid.rows()], note)


def _cost(results: Results, columns: Columns, amount: str) -> Table:
    quantities = [
        Quantity(f"{results.title(column)} {words}", column, _spent(results, name, unit), decimals)
        for column in columns
        for name, words, unit, decimals in (
            ("method_seconds", "s", 1.0, 1),
            ("trained_parameters", "M parameters", MEGA, 2),
            ("peak_memory_bytes", "MB", MEGA, 0),
        )
    ]
    grid = Grid(results, "main", amount, quantities)
    note = (
        "Seconds of the method alone, parameters that it can change, highest memory of the process "
        f"(of the GPU where there is one). {INTERVALS}"
    )
    return Table(f"Cost, {amount} deleted", grid.headings, grid.rows(), note)


def _spent(results: Results, name: str, unit: float) -> Read:
    def read(cell: Json, moment: str) -> float | None:
        run = results.run(cell)
        return None if moment != "after" or not run or not run["cost"] else run["cost"][name] / unit

    return read


def _ablation(results: Results, columns: Columns, amount: str) -> Table:
    quantities = [q for column in columns for q in _both(results, column)]
    grid = Grid(results, "ablation", amount, quantities)
    title = f"Table 4: without each part, {amount} deleted"
    return Table(title, grid.headings, grid.rows(), f"D_test and D_f as in table 2. {INTERVALS}")


def _tradeoff(results: Results, column: Column) -> Table:
    reads = [
        ("D_test", _metric(results, "d_test", subset="test"), 1),
        ("D_f", _metric(results, "d_f"), 1),
        ("AUC against the unseen", _metric(results, "unseen_auc"), 3),
        ("MI ratio", _metric(results, "mi_ratio"), 2),
    ]
    quantities = [Quantity(heading, column, read, digits) for heading, read, digits in reads]
    grid = Grid(results, "tradeoff", results.amounts[0], quantities)
    title = f"Trade-off between the two aims: {results.title(column)}"
    note = (
        "`target` is the D_f that is enough; `calibrated` aims at 0.5 against the unseen. One seed."
    )
    return Table(title, grid.headings, [grid.original(), *grid.rows()], note)


def _sequence(results: Results, column: Column) -> Table:
    (once,) = results.select("sequence", column, AT_ONCE)
    final = results.select("sequence", column, FINAL)
    steps = [c for c in results.select("sequence", column) if c["row"] not in (AT_ONCE, FINAL)]
    last = final[0] if final else once
    headings = [
        "Request",
        *("D_test after it", "D_f after it", "MI ratio after it"),
        *("D_f after the last", "AUC against the unseen after the last"),
        *("D_f at once", "AUC against the unseen at once", "MI ratio at once"),
    ]
    rows = [_step(results, step, last, once) for step in steps]
    test = [_shown(results, cell, "d_test", 1, "test") for cell in (last, once)]
    note = (
        f"{len(steps)} requests one after another on the same model, and all at once from the "
        f"original. D_test after the last {test[0]}, at once {test[1]}. One seed."
    )
    return Table(f"Requests in sequence: {results.title(column)}", headings, rows, note)


def _step(results: Results, step: Json, last: Json, once: Json) -> list[str]:
    subset = f"request:{step['row']}"
    return [
        step["row"],
        _shown(results, step, "d_test", 1, "test"),
        _shown(results, step, "d_f", 1, "forget"),
        _shown(results, step, "mi_ratio", 2, "forget"),
        _shown(results, last, "d_f", 1, subset),
        _shown(results, last, "unseen_auc", 3, subset),
        _shown(results, once, "d_f", 1, subset),
        _shown(results, once, "unseen_auc", 3, subset),
        _shown(results, once, "mi_ratio", 2, subset),
    ]


def _shown(results: Results, cell: Json, name: str, decimals: int, subset: str) -> str:
    value = results.value(cell, name, subset=subset)
    return NOTHING if value is None else f"{value:.{decimals}f}"
