"""A data set of the benchmark on the disk, and which of its pairs are deleted."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import BenchmarkError
from benchmarks.paper.presets import Preset
from benchmarks.runs import data_digest
from engine import DataSpec
from engine.data.convert import convert
from engine.data.digits import CARD, write_digits

DIGIT_PAIRS = 1000
"""Enough to delete a sixth of the training pairs, few enough for a quick look."""
REQUESTS = 10
"""Deletion requests of the sequence: one after another, and the same pairs at once."""


@dataclass(frozen=True)
class Amount:
    """How much is deleted: a number of pairs, or a percentage of the training pairs."""

    text: str
    pairs: int | None = None
    percent: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Amount":
        """Read ``90`` or ``3.5%``; raises `BenchmarkError`."""
        number = text.removesuffix("%")
        try:
            if number != text and 0 < float(number) < 100:
                return cls(text, percent=float(number))
            if number == text and int(number) > 0:
                return cls(text, pairs=int(number))
        except ValueError:
            pass
        raise BenchmarkError(f"a number of pairs or a percentage below 100% was expected: {text!r}")

    def of(self, training: int) -> int:
        """Return the number of pairs, at least 1."""
        if self.pairs is not None:
            return self.pairs
        return max(1, round((self.percent or 0.0) / 100 * training))


@dataclass(frozen=True)
class BenchData:
    """A prepared data set.

    Attributes:
        spec: manifest and root.
        digest: of both, see `benchmarks.runs.data_digest`.
        groups: ids of the training pairs that can only be deleted together.
    """

    spec: DataSpec
    digest: str
    groups: Sequence[tuple[str, ...]]

    @property
    def training(self) -> int:
        """Number of training pairs."""
        return sum(len(group) for group in self.groups)

    def draw(self, wanted: int, seed: int) -> list[tuple[str, ...]]:
        """Draw groups of at least ``wanted`` training pairs; a smaller draw starts a larger one.

        Raises:
            BenchmarkError: fewer than half of the training pairs would remain.
        """
        if wanted > self.training // 2:
            raise BenchmarkError(
                f"{wanted} of {self.training} training pairs were to be deleted; at most half can be"
            )
        order = list(self.groups)
        random.Random(seed).shuffle(order)  # noqa: S311 - a sample, no secret
        chosen: list[tuple[str, ...]] = []
        pairs = 0
        for group in order:
            if pairs >= wanted:
                break
            chosen.append(group)
            pairs += len(group)
        return chosen


def prepare(preset: Preset, data: Path | None, folder: Path) -> BenchData:
    """Write the manifest of a data set into ``folder``, and find what can be deleted.

    Args:
        preset: which data set.
        data: the folder with all of them.
        folder: of this data set's manifest, made when missing.

    Raises:
        BenchmarkError: the data set is not there.
        DataError: it is broken.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest = (folder / "manifest.jsonl").absolute()
    root = convert(_source(preset, data, folder), manifest).root.absolute()
    with manifest.open(encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if row["split"] == "train"]
    return BenchData(
        spec=DataSpec(manifest=manifest, root=root),
        digest=data_digest(manifest, root),
        groups=_groups(rows, whole_items=preset.whole_items),
    )


def files_of(preset: Preset, data: Path | None) -> Path | None:
    """Return where the files of a data set lie, or None if it needs none.

    Raises:
        BenchmarkError: it needs files, and they are not there.
    """
    if preset.path is None:
        return None
    if data is None:
        raise BenchmarkError(
            f"{preset.title} needs {preset.path} in a folder of data sets, and none was named: give --data"
        )
    if not (data / preset.path).exists():
        raise BenchmarkError(
            f"{preset.title} needs {preset.path} in the folder that --data names; it is not in {data}"
        )
    return data / preset.path


def _source(preset: Preset, data: Path | None, folder: Path) -> Path:
    found = files_of(preset, data)
    if found is not None:
        return found
    made = folder / "digits"
    if not (made / CARD).exists():  # it is written last
        write_digits(made, pairs=DIGIT_PAIRS)
    return made


def _groups(rows: Sequence[Mapping[str, Any]], *, whole_items: bool) -> list[tuple[str, ...]]:
    """Return the ids that belong together, sorted, so that a draw depends on the seed alone."""
    together: dict[str, list[str]] = {}
    for row in rows:
        name = json.dumps(row.get("item_id", row.get("image"))) if whole_items else row["id"]
        together.setdefault(name, []).append(row["id"])
    return [tuple(sorted(ids)) for _, ids in sorted(together.items())]


def joined(groups: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the ids of all groups."""
    return [name for group in groups for name in group]


def requests(groups: Sequence[tuple[str, ...]], count: int = REQUESTS) -> dict[str, list[str]]:
    """Cut a draw into ``count`` requests of like size, in its order.

    Raises:
        BenchmarkError: there are fewer groups than requests.
    """
    if len(groups) < count:
        raise BenchmarkError(
            f"{len(groups)} deleted images or pairs are too few for {count} requests; delete more"
        )
    bounds = [round(number * len(groups) / count) for number in range(count + 1)]
    return {
        f"request-{number + 1:02d}": joined(groups[bounds[number] : bounds[number + 1]])
        for number in range(count)
    }
