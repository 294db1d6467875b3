"""Requests one after another on the same model, beside all of them at once."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from benchmarks.paper.grid import NOTHING, Table, written
from benchmarks.paper.plan import AT_ONCE, FINAL
from benchmarks.paper.reads import detail
from benchmarks.paper.results import Column, Json, Results

RISE = "D_f rise"
DECIMALS = {"D_": 1, "MI": 2, "AUC": 3}
"""By the beginning of a heading."""

Found = Mapping[str, float | None]
"""By heading."""


def sequence(results: Results, column: Column) -> Table:
    """Return a row for each request, and their mean."""
    (once,) = results.select("sequence", column, AT_ONCE)
    (last,) = results.select("sequence", column, FINAL)
    cells = results.select("sequence", column)
    steps = [cell for cell in cells if cell["row"] not in (AT_ONCE, FINAL)]
    found = [_step(results, step, last, once) for step in steps]
    found[-1] = {**found[-1], RISE: None}  # nothing came after it
    rows = [
        [step["row"], *(_text(name, value) for name, value in values.items())]
        for step, values in zip(steps, found, strict=True)
    ]
    test = [_text("D_test", results.value(c, "d_test", subset="test")) for c in (last, once)]
    note = (
        f"{len(steps)} requests one after another on the same model, and all at once from the "
        f"original. D_test after the last {test[0]}, at once {test[1]}. `{RISE}` is D_f after the last "
        "minus D_f after it; the last request has none: nothing came after it. The MI ratio after "
        "it is against the model before that request, the others are against the original. One "
        "seed: the interval is a 95% t-interval over requests."
    )
    title = f"Requests in sequence: {results.title(column)}, {once['amount']} deleted in all"
    return Table(title, ["Request", *found[0]], [*rows, _mean(found)], note)


def _step(results: Results, step: Json, last: Json, once: Json) -> Found:
    subset = f"request:{step['row']}"
    here, end = results.value(step, "d_f"), results.value(last, "d_f", subset=subset)
    return {
        "D_test after it": results.value(step, "d_test", subset="test"),
        "D_f after it": here,
        "MI ratio after it": results.value(step, "mi_ratio"),
        "D_f after the last": end,
        RISE: None if here is None or end is None else end - here,
        "AUC against the unseen after the last": results.value(last, "unseen_auc", subset=subset),
        "MI ratio after the last": _ratio(results, once, last, subset),
        "D_f at once": results.value(once, "d_f", subset=subset),
        "AUC against the unseen at once": results.value(once, "unseen_auc", subset=subset),
        "MI ratio at once": results.value(once, "mi_ratio", subset=subset),
    }


def _ratio(results: Results, once: Json, last: Json, subset: str) -> float | None:
    """Return the MI ratio of the last model: it is only evaluated, without a model before.

    What all requests at once start from is the original of both.
    """
    read = detail(results, "mi_attack_auc", "mean_on_deleted", subset=subset)
    before, after = read(once, "before"), read(last, "after")
    return None if before is None or not after else before / after


def _mean(found: Sequence[Found]) -> list[str]:
    """Return the mean of each column, that of the rise with its interval over requests."""
    texts = []
    for name in found[0]:
        values = [value for one in found for value in [one[name]] if value is not None]
        if name == RISE:
            texts.append(written(dict(enumerate(values)), _decimals(name)))
        else:
            texts.append(_text(name, fmean(values) if values else None))
    return ["mean", *texts]


def _text(name: str, value: float | None) -> str:
    return NOTHING if value is None else f"{value:.{_decimals(name)}f}"


def _decimals(name: str) -> int:
    return next(digits for start, digits in DECIMALS.items() if name.startswith(start))
