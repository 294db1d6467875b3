"""The demo's data: made or converted by the engine in a process of its own, and what to forget."""

import json
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.demo.client import DemoError
from app.demo.processes import run_python
from app.demo.recipes import Recipe, recipe_for

_DIGITS = "digits"
_EXPECTED = (
    "Expected images with captions, one image with one of three labels (entailment), two images "
    "with one of two labels (NLVR), or labelled graphs with texts."
)


@dataclass(frozen=True)
class DemoData:
    """A data set, ready to be registered.

    Attributes:
        name: of the data set.
        modality: ``image`` or ``graph``.
        root: what the manifest's references are relative to.
        manifest: JSON lines, one pair each.
        classes: number of classes; None without labels.
        splits: number of pairs in each split.
        recipe: what to train on it.
    """

    name: str
    modality: str
    root: Path
    manifest: Path
    classes: int | None
    splits: Mapping[str, int]
    recipe: Recipe


@dataclass(frozen=True)
class Forgotten:
    """What the demo asks to delete: items or pairs, in the body's form and in words."""

    targets: Mapping[str, Sequence[str]]
    pairs: int
    words: str


def prepare(path: Path | None, workspace: Path, seed: int) -> DemoData:
    """Convert the data set at ``path``, or make the digits, and say what was found.

    Raises:
        DemoError: the folder is in no known format, its data are broken, or no model here fits it.
    """
    source = path.absolute() if path is not None else _make_digits(workspace / _DIGITS, seed)
    manifest = workspace / "pairs.jsonl"
    report = json.loads(_engine("engine.data", str(source), str(manifest)))
    if report["task"] is None:
        raise DemoError(f"No model here fits {source}: it holds {_described(report)}. {_EXPECTED}")
    recipe = recipe_for(report["format"], report["task"])
    return DemoData(
        source.stem if source.is_file() else source.name,
        report["modality"],
        Path(report["root"]).absolute(),
        manifest,
        report["classes"],
        report["splits"],
        recipe,
    )


def _described(report: Mapping[str, Any]) -> str:
    items = f"{report['items_per_pair']} {report['modality']}(s) a pair"
    labels = f"{report['classes']} classes" if report["classes"] else "no labels"
    return f"{items} and {labels}"


def choose(data: DemoData, share: float, seed: int) -> Forgotten:
    """Draw what to forget: ``share`` of the training pairs.

    Where an image has several texts, whole images are drawn until the share is reached, as when a
    person asks for their photographs to be forgotten; otherwise single pairs.
    """
    training = [row for row in _rows(data.manifest) if row["split"] == "train"]
    wanted = max(1, round(share * len(training)))
    draw = random.Random(seed)  # noqa: S311 - a sample, no secret
    by_item: dict[str, int] = defaultdict(int)
    for row in training:
        by_item[_item(row)] += 1
    # An image with captions is a person's photograph; labelled examples are asked for one by one.
    if data.recipe.task == "retrieval" and len(by_item) < len(training):
        items = sorted(by_item)
        draw.shuffle(items)
        return _whole_items(items, by_item, wanted)
    chosen = draw.sample(sorted(row["id"] for row in training), wanted)
    return Forgotten({"pair_ids": chosen}, wanted, f"{wanted:,} pairs, named by their ids")


def _whole_items(items: Sequence[str], pairs_of: Mapping[str, int], wanted: int) -> Forgotten:
    chosen: list[str] = []
    pairs = 0
    for item in items:
        if pairs >= wanted:
            break
        chosen.append(item)
        pairs += pairs_of[item]
    return Forgotten(
        {"item_ids": chosen}, pairs, f"{len(chosen):,} images with all of their {pairs:,} texts"
    )


def _item(row: Mapping[str, Any]) -> str:
    """Return the id of the row's image or graph."""
    return str(row.get("item_id") or row.get("image") or row.get("graph"))


def _rows(manifest: Path) -> Iterator[dict[str, Any]]:
    with manifest.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _make_digits(folder: Path, seed: int) -> Path:
    _engine("engine.data.digits", str(folder), "--seed", str(seed))
    return folder


def _engine(module: str, *arguments: str) -> str:
    """Run a command of the engine and return what it printed."""
    done = run_python(["-m", module, *arguments])
    if done.returncode:
        raise DemoError(f"The data cannot be used: {done.stderr.strip()[-1500:]}")
    return done.stdout
