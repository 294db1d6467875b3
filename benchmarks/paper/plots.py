"""Plots of what was measured, as PNG and SVG; the same results give the same bytes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.figures import BenchmarkError
from benchmarks.paper.grid import name_of
from benchmarks.paper.plan import TARGET
from benchmarks.paper.reads import seconds_by_size
from benchmarks.paper.results import Column, Json, Mean, Results
from benchmarks.paper.variants import YARDSTICK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Neither a time nor a random id may be in a file, so that a repetition can be compared by its bytes.
# A title may have dollars in it.
_STYLE: Any = {
    "svg.hashsalt": "lethe",
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "text.parse_math": False,
}
_METADATA = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
_KINDS = ("d_f-d_test-", "aims-", "time-", "scores-")
_MARKERS = "osD^vP*X<>hd"
_HISTOGRAMS = {"deleted": "D_f", "retained": "D_r", "unseen": "unseen"}


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw every plot that there are cells for into ``folder``; return the files.

    Raises:
        BenchmarkError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise BenchmarkError(
            "plots need matplotlib: pip install -c constraints.txt -e '.[bench]'"
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    with mpl.rc_context(_STYLE):
        for column in results.columns:
            for amount in results.amounts if results.select("main", column) else ():
                files += _utility_against_forgetting(results, column, amount, folder)
            if results.select("tradeoff", column):
                files += _trade(results, column, folder)
            if results.select("sizes", column):
                files += _time_against_size(results, column, folder)
            files += _histograms(results, column, folder)
    _remove_older(folder, files)
    return files


def _remove_older(folder: Path, files: list[Path]) -> None:
    """Remove plots of an earlier call that asked for something else: they would pass for this one's."""
    for file in folder.iterdir():
        ours = file.suffix[1:] in _METADATA and file.name.startswith(_KINDS)
        if ours and file not in files:
            file.unlink()


def _stem(kind: str, column: Column, rest: str = "") -> str:
    parts = [kind, *column, rest.replace("%", "pct").replace(".", "_")]
    return "-".join(part for part in parts if part)


@contextmanager
def _figure(width: float, folder: Path, stem: str, files: list[Path]) -> "Iterator[Figure]":
    """Give an empty figure, and write it in both formats after the block."""
    # A figure of its own, without pyplot, needs no display and leaves no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    yield figure
    for kind, metadata in _METADATA.items():
        files.append(folder / f"{stem}.{kind}")
        figure.savefig(files[-1], dpi=150, metadata=metadata)


def _utility_against_forgetting(
    results: Results, column: Column, amount: str, folder: Path
) -> list[Path]:
    """D_f against D_test: one point a method, with its intervals."""
    files: list[Path] = []
    points = list(_points(results, column, amount))
    if not points:
        return files
    # A method and its -F share a colour and a marker, which is hollow for -F.
    bases = list(dict.fromkeys(row.removesuffix("-F") for row, _, _ in points))
    with _figure(6.4, folder, _stem("d_f-d_test", column, amount), files) as figure:
        axes = figure.add_subplot()
        for row, x, y in points:
            number = bases.index(row.removesuffix("-F"))
            axes.errorbar(
                x.value,
                y.value,
                xerr=x.half,
                yerr=y.half,
                fmt=_MARKERS[number % len(_MARKERS)],
                color=f"C{number % 10}",
                markerfacecolor="white" if row.endswith("-F") else None,
                label=name_of(row),
            )
        axes.set(xlabel="D_test (points, higher is better)", ylabel="D_f (lower is better)")
        axes.set_title(f"{results.title(column)}, {amount} deleted")
        _legend(figure, axes)
    return files


def _points(results: Results, column: Column, amount: str) -> Iterator[tuple[str, Mean, Mean]]:
    """Yield row, D_test and D_f of each method that has both."""
    for row in results.rows("main"):
        cells = results.select("main", column, row, amount)
        x = Mean.of(_values(results, cells, "d_test", "test"))
        y = Mean.of(_values(results, cells, "d_f", "forget"))
        if x is not None and y is not None:
            yield row, x, y


def _values(results: Results, cells: Sequence[Json], name: str, subset: str) -> list[float]:
    found = [results.value(cell, name, subset=subset) for cell in cells]
    return [value for value in found if value is not None]


def _legend(figure: "Figure", axes: "Axes") -> None:
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper")


def _trade(results: Results, column: Column, folder: Path) -> list[Path]:
    """The two aims against each other: a curve over what is asked for, with intervals over seeds.

    Left the AUC against the unseen, right D_test, both over D_f. `calibrated`, the yardstick and the
    original are points beside the curve.
    """
    files: list[Path] = []
    cells = results.select("tradeoff", column)
    shown = _aims_by_kind(results, column, cells)
    if "decouple" not in shown:
        return files
    with _figure(8.6, folder, _stem("aims", column), files) as figure:
        panels = figure.subplots(1, 2)
        for number, (name, points) in enumerate(shown.items()):
            shape = _MARKERS[number] + ("-" if name == "decouple" else "")
            for axes, place in zip(panels, (1, 2), strict=True):
                _curve(axes, [(point[0], point[place]) for point in points], shape, name)
        panels[0].axhline(0.5, color="gray", linewidth=0.8)
        panels[0].set(xlabel="D_f", ylabel="AUC against the unseen (0.5: as if never there)")
        panels[1].set(xlabel="D_f", ylabel="D_test (points)")
        figure.suptitle(f"{results.title(column)}, {cells[0]['amount']} deleted: the two aims")
        _legend(figure, panels[0])
    return files


def _aims_by_kind(
    results: Results, column: Column, cells: Sequence[Json]
) -> dict[str, list[tuple[Mean, ...]]]:
    """Return `_aims` of the curve and of the points beside it, all of the same seeds."""
    seeds = {cell["seed"] for cell in cells}
    others = results.select("main", column, YARDSTICK, cells[0]["amount"])
    kinds = {
        "decouple": [c for c in cells if c["row"].startswith(TARGET)],
        "calibrated": [c for c in cells if not c["row"].startswith(TARGET)],
        name_of(YARDSTICK): [c for c in others if c["seed"] in seeds],
    }
    shown = {name: list(_aims(results, found, "after")) for name, found in kinds.items()}
    first = [cell for cell in cells if cell["row"] == cells[0]["row"]]
    shown["original"] = list(_aims(results, first, "before"))
    return {name: points for name, points in shown.items() if points}


def _aims(results: Results, cells: Sequence[Json], moment: str) -> Iterator[tuple[Mean, ...]]:
    """Yield the mean D_f, AUC against the unseen and D_test of each row, over seeds that have all."""
    for row in dict.fromkeys(cell["row"] for cell in cells):
        measured = [_three(results, cell, moment) for cell in cells if cell["row"] == row]
        known = [values for values in measured if None not in values]
        means = [Mean.of(values) for values in zip(*known, strict=True)]
        if means:
            yield tuple(mean for mean in means if mean is not None)


def _three(results: Results, cell: Json, moment: str) -> tuple[float | None, ...]:
    return (
        results.value(cell, "d_f", moment),
        results.value(cell, "unseen_auc", moment),
        results.value(cell, "d_test", moment, "test"),
    )


def _curve(axes: "Axes", points: Sequence[tuple[Mean, Mean]], shape: str, name: str) -> None:
    """Draw means from left to right, with their intervals where there are several seeds."""
    along = sorted(points, key=lambda point: point[0].value)
    xs, ys = ([point[place] for point in along] for place in (0, 1))
    axes.errorbar(
        [x.value for x in xs],
        [y.value for y in ys],
        xerr=[x.half or 0.0 for x in xs],
        yerr=[y.half or 0.0 for y in ys],
        fmt=shape,
        elinewidth=0.8,
        label=name,
    )


def _time_against_size(results: Results, column: Column, folder: Path) -> list[Path]:
    """Seconds of a method against |D_f| (paper, figure 2): means over seeds with intervals."""
    files: list[Path] = []
    times = seconds_by_size(results, column)
    if not times:
        return files
    with _figure(5.6, folder, _stem("time", column), files) as figure:
        axes = figure.add_subplot()
        for row, means in times.items():
            values = [mean.value for mean in means.values()]
            halves = [mean.half or 0.0 for mean in means.values()]
            axes.errorbar(
                list(means), values, yerr=halves, marker="o", capsize=3, label=name_of(row)
            )
        axes.set(xlabel="deleted pairs", ylabel="seconds", ylim=(0, None))
        axes.set_title(f"{results.title(column)}: time against |D_f|")
        _legend(figure, axes)
    return files


def _histograms(results: Results, column: Column, folder: Path) -> list[Path]:
    """Pair scores of D_f, D_r and unseen pairs before and after each method, of the first seed."""
    files: list[Path] = []
    cells = results.select("main", column)
    first = min((cell["seed"] for cell in cells), default=0)
    for cell in cells:
        found = [_counts(results, cell, moment) for moment in ("before", "after")]
        if cell["seed"] != first or None in found:
            continue
        stem = _stem("scores", column, f"{cell['row']}-{cell['amount']}")
        with _figure(7.2, folder, stem, files) as figure:
            for axes, moment, counts in zip(
                figure.subplots(1, 2, sharey=True), ("before", "after"), found, strict=True
            ):
                _bars(axes, counts or {})
                axes.set(xlabel="pair score", title=f"{moment} {name_of(cell['row'])}")
            figure.axes[0].set(ylabel="share of pairs")
            figure.suptitle(f"{results.title(column)}, {cell['amount']} deleted")
            _legend(figure, figure.axes[0])
    return files


def _counts(results: Results, cell: Json, moment: str) -> Json | None:
    """Return the score histograms of a run: the metric that has them names its outer edges."""
    run = results.run(cell)
    for metric in run["metrics"] if run else ():
        if (metric["moment"], metric["subset"]) == (moment, "forget"):
            found: Json | None = metric.get("details", {}).get("histograms")
            if found is not None:
                return found
    return None


def _bars(axes: "Axes", counts: Json) -> None:
    """Draw the share of each group in each bin, as steps."""
    for name, label in _HISTOGRAMS.items():
        bins = counts.get(name)
        if bins:
            width = (counts["high"] - counts["low"]) / len(bins)
            edges = [counts["low"] + number * width for number in range(len(bins) + 1)]
            total = sum(bins) or 1
            shares = [count / total for count in bins]
            axes.stairs(shares, edges, label=label, fill=True, alpha=0.4)
