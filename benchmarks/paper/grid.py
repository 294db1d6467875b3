"""A table of methods by measured quantities, with means over seeds and over data sets."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.paper.results import Column, Json, Mean, Results
from benchmarks.paper.variants import CALIBRATED, FULL

TITLES = {
    "retrain": "Retrain",
    "finetune": "FineTune",
    "neggrad": "NegGrad",
    "dtd": "DtD",
    "lcodec": "L-codec",
    "erm_ktp": "Erm-Ktp",
    "ul": "UL",
    "multidelete": "MultiDelete",
    FULL: "Full model",
}
"""Names of methods as the paper prints them; others keep their own."""
ORIGINAL, NOT_APPLICABLE, NOTHING = "Original", "N/A", "-"

Read = Callable[[Json, str], float | None]
"""(cell, ``before`` or ``after``) to a value."""


@dataclass(frozen=True)
class Table:
    """A table with what a reader must know to read it."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def markdown(self) -> str:
        """Return the table as Markdown."""
        lines = [f"## {self.title}", ""]
        lines += [self.note, ""] if self.note else []
        rule = ["---"] + ["---:"] * (len(self.headings) - 1)
        lines += [f"| {' | '.join(row)} |" for row in (self.headings, rule, *self.rows)]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Quantity:
    """A column of a table.

    Attributes:
        heading: of the column.
        column: data set and family.
        read: takes the value from a cell.
        decimals: digits after the point.
        mean: name of the mean over data sets that it counts in, or None.
    """

    heading: str
    column: Column
    read: Read
    decimals: int = 1
    mean: str | None = None


Values = dict[int, float]
"""By seed."""


class Grid:
    """The rows of one part and amount, filled in.

    Args:
        results: what was measured.
        part: of the plan.
        amount: how much was deleted.
        quantities: the columns, to which the means over data sets are added.
    """

    def __init__(
        self, results: Results, part: str, amount: str, quantities: Sequence[Quantity]
    ) -> None:
        self.results, self.part, self.amount = results, part, amount
        self.quantities = quantities
        self.means = list(dict.fromkeys(q.mean for q in quantities if q.mean))

    @property
    def headings(self) -> list[str]:
        """Return the head of the table."""
        return ["Method", *(q.heading for q in self.quantities), *(f"Avg. {m}" for m in self.means)]

    def rows(self) -> list[list[str]]:
        """Return a row for each method that these columns have cells of."""
        rows = self.results.rows(self.part)
        return [self._row(r) for r in rows if any(self._cells(q, r) for q in self.quantities)]

    def original(self) -> list[str]:
        """Return the row of the originals: what any method found before it began."""
        values = [self._values(quantity, None, "before") for quantity in self.quantities]
        texts = [written(v, q.decimals) for q, v in zip(self.quantities, values, strict=True)]
        return [ORIGINAL, *texts, *self._means(values)]

    def _row(self, row: str) -> list[str]:
        values = [self._values(quantity, row, "after") for quantity in self.quantities]
        texts = [
            self._text(quantity, row, found)
            for quantity, found in zip(self.quantities, values, strict=True)
        ]
        return [name_of(row), *texts, *self._means(values)]

    def _text(self, quantity: Quantity, row: str, found: Values) -> str:
        """Return the mean; where seeds have no value, as one that diverged, with how many have one."""
        if not found:
            return self._absence(quantity, row)
        asked = {cell["seed"] for cell in self._cells(quantity, row)}
        share = f" ({len(found)} of {len(asked)})" if len(found) < len(asked) else ""
        return written(found, quantity.decimals) + share

    def _values(self, quantity: Quantity, row: str | None, moment: str) -> Values:
        found: Values = {}
        for cell in self._cells(quantity, row):
            value = quantity.read(cell, moment)
            if value is not None:
                found.setdefault(cell["seed"], value)
        return found

    def _cells(self, quantity: Quantity, row: str | None) -> list[Json]:
        return self.results.select(self.part, quantity.column, row, self.amount)

    def _absence(self, quantity: Quantity, row: str) -> str:
        states = {self.results.status(cell) for cell in self._cells(quantity, row)}
        if "not applicable" in states:
            return NOT_APPLICABLE
        return "diverged" if "diverged" in states else NOTHING

    def _means(self, values: Sequence[Values]) -> Iterator[str]:
        """Yield the means over the data sets that have a value, as the paper takes them."""
        for mean in self.means:
            pairs = zip(self.quantities, values, strict=True)
            chosen = [(q, found) for q, found in pairs if q.mean == mean and found]
            shared = set.intersection(*(set(found) for _, found in chosen)) if chosen else set()
            averages = {s: sum(found[s] for _, found in chosen) / len(chosen) for s in shared}
            most = max((len(found) for _, found in chosen), default=0)
            share = f" ({len(shared)} of {most})" if shared and len(shared) < most else ""
            yield written(averages, chosen[0][0].decimals if chosen else 0) + share


def written(values: Values, decimals: int = 1) -> str:
    """Return the mean of values over seeds in text, with its 95% t-interval where there is one."""
    mean = Mean.of(list(values.values()))
    return NOTHING if mean is None else mean.text(decimals)


def name_of(row: str) -> str:
    """Return a method's name as the paper prints it."""
    base = row.partition(", ")[0].removesuffix("-F").removesuffix(CALIBRATED)
    return TITLES.get(base, base) + row[len(base) :].replace(CALIBRATED, ", calibrated")
