"""Where the numbers come from: commits, machines and runs behind the tables."""

from collections import Counter
from collections.abc import Iterable, Iterator

from benchmarks.paper.grid import Table
from benchmarks.paper.results import Json, Results

SHORT = 8
"""Hex digits of the id of a run that are enough to find it."""


def measured_on(results: Results) -> str:
    """Return lines on the commits, machines and platforms of the runs, with how many had each.

    Load averages differ from run to run and stand in ``results.json`` alone.
    """
    runs = results.content["runs"].values()
    origins = [run["provenance"] for run in runs if run["provenance"]]
    asked = results.content["options"]
    lines = [
        f"- Commits: {_counted(origin['commit'] for origin in origins)}",
        f"- Machines: {_counted(_machine(origin['machine']) for origin in origins)}",
        f"- Platforms: {_counted(_platforms(runs))}",
        f"- Asked for: {asked['threads']} thread(s) a run, {_seeds(asked)}{_settings(asked)}",
        f"- Put together at commit {results.content['commit']}",
    ]
    return "\n".join(lines) + "\n"


def _seeds(asked: Json) -> str:
    """Return how many seeds, and the first where it is not 0: these are other originals."""
    first = asked.get("first_seed", 0)
    return f"{asked['seeds']} seed(s)" + (f" from {first} on" if first else "")


def _settings(asked: Json) -> str:
    """Return what was set of methods in place of their defaults."""
    given = asked.get("settings", {}).items()
    return "".join(f", {m}.{name} = {value}" for m, own in given for name, value in own.items())


def _counted(names: Iterable[str]) -> str:
    counts = sorted(Counter(names).items())
    return "; ".join(f"{name} ({n} run{'s' * (n != 1)})" for name, n in counts) or "none"


def _machine(machine: Json) -> str:
    return f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}"


def _platforms(runs: Iterable[Json]) -> Iterator[str]:
    """Yield the platform of each run that was done: only these say what it was."""
    for run in runs:
        known = run["environment"]
        if known:
            yield f"{known['platform']}, device {known['device']}, torch {known['torch']}"


def traced(results: Results) -> str:
    """Return a table of the runs behind each cell of each table, in Markdown."""
    found: dict[tuple[str, ...], list[str]] = {}
    for cell in results.cells:
        if cell["run_id"] is not None:
            column = results.title((cell["preset"], cell["family"]))
            key = (cell["part"], cell["amount"], cell["row"], column)
            found.setdefault(key, []).append(_named(results, cell))
    rows = [[*key, ", ".join(runs)] for key, runs in found.items()]
    note = (
        f"For each seed the first {SHORT} digits of the run's id: the rest of it, its specification, "
        "commit, machine and every metric stand on one line of `results.json`. The originals are what "
        "these runs measured before they began."
    )
    headings = ["Part", "Amount", "Row", "Data set", "Runs by seed"]
    return f"# Runs behind the tables\n\n{Table('By part', headings, rows, note).markdown()}"


def _named(results: Results, cell: Json) -> str:
    status = results.status(cell)
    name = f"{cell['seed']}: `{cell['run_id'][:SHORT]}`"
    return name if status == "done" else f"{name} ({status})"
