"""Requests one after another on the same model, beside all of them at once."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from benchmarks.paper.grid import NOTHING, Table, Values, written
from benchmarks.paper.plan import AT_ONCE, FINAL
from benchmarks.paper.reads import detail
from benchmarks.paper.results import Column, Json, Results

RISE = "D_f rise"
DECIMALS = {"D_": 1, "MI": 2, "AUC": 3}
"""By the beginning of a heading."""

Found = Mapping[str, float | None]
"""By heading."""


def sequence(results: Results, column: Column) -> Table:
    """Return a row for each request, and their mean; values are means over seeds."""
    cells = results.select("sequence", column)
    chains = {seed: _Chain(results, cells, seed) for seed in {cell["seed"] for cell in cells}}
    first = next(iter(chains.values()))
    requests = [step["row"] for step in first.steps]
    steps = {seed: list(chain.found()) for seed, chain in chains.items()}
    headings = list(steps[first.seed][0])
    rows = [
        [name, *(_over({s: [found[place]] for s, found in steps.items()}, h) for h in headings)]
        for place, name in enumerate(requests)
    ]
    rows.append(["mean", *(_over(steps, heading) for heading in headings)])
    ends = [
        _written({s: end(c) for s, c in chains.items()}, "D_test")
        for end in (_Chain.test_after_last, _Chain.test_at_once)
    ]
    rises = [one[RISE] for found in steps.values() for one in found]
    most = max((rise for rise in rises if rise is not None), default=None)
    note = (
        f"{len(requests)} requests one after another on the same model, and all at once from the "
        f"original. D_test after the last {ends[0]}, at once {ends[1]}. `{RISE}` is D_f after the last "
        "minus D_f after it; the last request has none: nothing came after it. Most that one request "
        f"rose: {_text(RISE, most)}. The MI ratio after it is against the model before that request, "
        f"the others are against the original. Seeds: {len(chains)}; intervals are 95% t-intervals "
        "over them, those of the mean too."
    )
    title = f"Requests in sequence: {results.title(column)}, {cells[0]['amount']} deleted in all"
    return Table(title, ["Request", *headings], rows, note)


class _Chain:
    """The runs of one seed.

    Attributes:
        steps: cells of the requests, in their order.
    """

    def __init__(self, results: Results, cells: Sequence[Json], seed: int) -> None:
        self.results, self.seed = results, seed
        mine = [cell for cell in cells if cell["seed"] == seed]
        (self.once,) = [cell for cell in mine if cell["row"] == AT_ONCE]
        (self.last,) = [cell for cell in mine if cell["row"] == FINAL]
        self.steps = [cell for cell in mine if cell["row"] not in (AT_ONCE, FINAL)]

    def found(self) -> Iterator[Found]:
        """Yield what was measured on each request."""
        for step in self.steps:
            found = self._step(step)
            yield found if step is not self.steps[-1] else {**found, RISE: None}

    def test_after_last(self) -> float | None:
        """Return D_test after the last request."""
        return self.results.value(self.last, "d_test", subset="test")

    def test_at_once(self) -> float | None:
        """Return D_test of the model that met all requests at once."""
        return self.results.value(self.once, "d_test", subset="test")

    def _step(self, step: Json) -> Found:
        results, once, last = self.results, self.once, self.last
        subset = f"request:{step['row']}"
        here, end = results.value(step, "d_f"), results.value(last, "d_f", subset=subset)
        unseen = "unseen_auc"
        return {
            "D_test after it": results.value(step, "d_test", subset="test"),
            "D_f after it": here,
            "MI ratio after it": results.value(step, "mi_ratio"),
            "D_f after the last": end,
            RISE: None if here is None or end is None else end - here,
            "AUC against the unseen after the last": results.value(last, unseen, subset=subset),
            "MI ratio after the last": self._ratio(subset),
            "D_f at once": results.value(once, "d_f", subset=subset),
            "AUC against the unseen at once": results.value(once, unseen, subset=subset),
            "MI ratio at once": results.value(once, "mi_ratio", subset=subset),
        }

    def _ratio(self, subset: str) -> float | None:
        """Return the MI ratio of the last model: it is only evaluated, without a model before.

        What all requests at once start from is the original of both.
        """
        read = detail(self.results, "mi_attack_auc", "mean_on_deleted", subset=subset)
        before, after = read(self.once, "before"), read(self.last, "after")
        return None if before is None or not after else before / after


def _over(steps: Mapping[int, Sequence[Found]], heading: str) -> str:
    """Return the mean over seeds of each seed's mean over requests."""
    known = {
        seed: [value for one in found if (value := one[heading]) is not None]
        for seed, found in steps.items()
    }
    return _written({s: fmean(values) if values else None for s, values in known.items()}, heading)


def _written(values: Mapping[int, float | None], heading: str) -> str:
    known: Values = {seed: value for seed, value in values.items() if value is not None}
    return written(known, _decimals(heading))


def _text(name: str, value: float | None) -> str:
    return NOTHING if value is None else f"{value:.{_decimals(name)}f}"


def _decimals(name: str) -> int:
    return next(digits for start, digits in DECIMALS.items() if name.startswith(start))
