"""Put the results of several calls together: rows that were run at other times, or elsewhere."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from benchmarks.figures import BenchmarkError, commit, machine
from benchmarks.paper.layout import Json, read
from benchmarks.paper.plan import PRETRAINED, Part
from benchmarks.paper.variants import variants

KEY = ("part", "preset", "family", "amount", "row", "seed")
"""What a cell is of."""
ENDED = ("done", "diverged", "not applicable")


def together(files: Sequence[Path]) -> Json:
    """Return the content of one ``results.json`` for the cells of several.

    A cell that several have is the last one's whose run ended. Runs that no cell needs are left out.

    Raises:
        BenchmarkError: a file is no ``results.json``, or two are of other data, originals, devices or threads.
    """
    contents = [read(file) for file in files]
    for file, content in zip(files[1:], contents[1:], strict=True):
        _check(files[0], contents[0], file, content)
    cells: dict[tuple[Any, ...], Json] = {}
    data: Json = {}
    runs: dict[str, Json] = {}
    for content in contents:
        for name, one in content["data"].items():
            _check_data(name, data.setdefault(name, one), one)
        for run_id, run in content["runs"].items():
            if run_id not in runs or run["status"] in ENDED:
                runs[run_id] = run
        for cell in content["cells"]:
            key = tuple(cell[name] for name in KEY)
            if key not in cells or _ended(cell, runs):
                cells[key] = cell
    amounts = _first_seen(content["options"]["amounts"] for content in contents)
    chosen = sorted(cells.values(), key=_order(list(cells.values()), amounts))
    _check_originals(chosen, runs)
    found: Json = {}
    for cell in chosen:
        found |= _behind(cell["run_id"], runs)
    options = {
        **contents[0]["options"],
        "amounts": amounts,
        "seeds": max(content["options"]["seeds"] for content in contents),
        "parts": _first_seen([[cell["part"] for cell in chosen]]),
    }
    head = {"format": contents[0]["format"], "commit": commit(), "machine": machine()}
    return {**head, "options": options, "data": data, "cells": chosen, "runs": found}


def _check(first: Path, kept: Json, file: Path, content: Json) -> None:
    for name in ("device", "threads"):
        mine, other = kept["options"].get(name), content["options"].get(name)
        if mine != other:
            raise BenchmarkError(
                f"seconds in one table must compare: {first} was asked for with {name} {mine}, and "
                f"{file} with {other}; write them to folders of their own"
            )
    for name, usual in (("first_seed", 0), ("settings", {})):
        mine, other = (one["options"].get(name, usual) for one in (kept, content))
        if mine != other:
            raise BenchmarkError(
                f"rows of one table must have the same originals and settings: {first} was asked for with "
                f"{name} {mine}, and {file} with {other}; write them to folders of their own"
            )


def _check_data(name: str, kept: Json, other: Json) -> None:
    mine, theirs = kept.get("sha256"), other.get("sha256")
    if mine != theirs:
        raise BenchmarkError(
            f"the data of {name} differ: SHA-256 {mine} in one file and {theirs} in another; put only "
            "results on the same data together"
        )


def _check_originals(cells: Sequence[Json], runs: Mapping[str, Json]) -> None:
    """Refuse rows of different originals: a table has one for each seed, and losses are from it."""
    kept: dict[tuple[Any, ...], tuple[str, Any]] = {}
    for cell in cells:
        original = _original(cell["run_id"], runs)
        value = None if original is None else _utility(runs[original])
        if original is None or value is None:
            continue
        key = (cell["preset"], cell["family"], cell["seed"])
        first, known = kept.setdefault(key, (original, value))
        if known != value:
            raise BenchmarkError(
                f"rows of different originals: of {key[0]} ({key[1]}), seed {key[2]}, run {first} has a D_test of "
                f"{known} and run {original} one of {value}; run the rows of one of them again"
            )


def _original(run_id: str | None, runs: Mapping[str, Json]) -> str | None:
    """Return the training that a run goes back to, where it is there."""
    while run_id is not None and run_id in runs:
        parent = runs[run_id].get("parent")
        if parent is None:
            return run_id
        run_id = parent
    return None


def _utility(run: Json) -> Any:
    for metric in run["metrics"]:
        if (metric["name"], metric["moment"], metric["subset"]) == ("d_test", "after", "test"):
            return metric["value"]
    return None


def _ended(cell: Json, runs: Mapping[str, Json]) -> bool:
    if cell["run_id"] is None:
        return True
    run = runs.get(cell["run_id"])
    return run is not None and run["status"] in ENDED


def _behind(run_id: str | None, runs: Mapping[str, Json]) -> Json:
    """Return a run and those that it started from."""
    run = None if run_id is None else runs.get(run_id)
    if run is None:
        return {}
    start = run["spec"].get("config", {}).get(PRETRAINED)
    before = _behind(start, runs) | _behind(run.get("parent"), runs)
    return {**before, run_id: run}


def _order(cells: Sequence[Json], amounts: Sequence[str]) -> Callable[[Json], tuple[int, ...]]:
    """Return a key that brings cells into the order of the plan."""
    rows = [variant.row for variant in variants()]
    orders = {
        "preset": _first_seen([[cell["preset"] for cell in cells]]),
        "family": _first_seen([[cell["family"] for cell in cells]]),
        "part": _first_seen([get_args(Part), [cell["part"] for cell in cells]]),
        "amount": _first_seen([amounts, [cell["amount"] for cell in cells]]),
    }
    others = _first_seen([rows, [cell["row"] for cell in cells]])
    own = _first_seen([[cell["row"] for cell in cells if cell["part"] != "main"]])

    def place(cell: Json) -> tuple[int, ...]:
        main = cell["part"] == "main"
        row = (others if main else own).index(cell["row"])
        return (*(order.index(cell[name]) for name, order in orders.items()), row, cell["seed"])

    return place


def _first_seen(names: Iterable[Iterable[str]]) -> list[str]:
    """Return each name once, in the order in which they come."""
    return list(dict.fromkeys(name for some in names for name in some))
