"""How the time of an unlearning job grows with the data set, and with what is deleted.

The jobs are whole ones, each in a process of its own: load, prepare, measure, unlearn, measure,
save. The original is trained for one pass, since how well it has learned changes no time.

Growth with |D| is that of jobs as any user has them. By default a run makes a least number of steps
however small D_f is, which would hide growth with |D_f|: for that none is asked for. Growth with |D| is
shown for these short jobs too, of which what is done once for a data set is a larger part.

A run draws as many pairs of D_r as its steps take, at most `RETAINED`: without the least steps, with 32
deleted pairs, 768, which are all of the small data set and a tenth of the large one. Where D_r has fewer
pairs than a run takes, up to `RETAINED` of them, what the teacher passes grows with |D|.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.figures import Bar, Figure, median_figure
from benchmarks.paper.presets import PRESETS, WITHOUT_DATA
from benchmarks.runs import CHECKPOINT, execute
from engine import DataSpec, RunResult, RunSpec
from engine.data.digits import write_digits

NAME = "scaling"
HELD_OUT = 100
"""Validation pairs, and test pairs: few, so that measuring does not hide how a job grows."""
SHORT: Mapping[str, Any] = {"least_steps": 0}
LESS_THAN_TEN, LESS_THAN_FIVE = Bar("below", 1.15), Bar("below", 5.5)


@dataclass(frozen=True)
class Jobs:
    """Sizes of the jobs.

    Attributes:
        small: training pairs of the small data set; the large one has ten times as many.
        deleted: pairs, in whole batches; the large deletion has five times as many.
        rounds: how often each job is run, in turns.
    """

    small: int = 780
    deleted: int = 32
    rounds: int = 3


def measure(work: Path, jobs: Jobs, threads: int = 1, device: str = "cpu") -> list[Figure]:
    """Run the jobs in turns and compare each with the small one beside it."""
    with TemporaryDirectory(dir=work) as name:
        bench = _Scaling(Path(name).absolute(), jobs, threads, device)
        rounds = [bench.round(number) for number in range(jobs.rounds)]
    return [*_data(rounds, jobs), *_deletion(rounds, jobs)]


def _data(rounds: Sequence[Mapping[str, RunResult]], jobs: Jobs) -> list[Figure]:
    what = f"|D| {jobs.small} to {10 * jobs.small}, {jobs.deleted} deleted"
    return [
        *_compared(rounds, "small", "large", what, LESS_THAN_TEN),
        *_compared(rounds, "small short", "large short", f"{what}, no least steps", None),
    ]


def _deletion(rounds: Sequence[Mapping[str, RunResult]], jobs: Jobs) -> list[Figure]:
    what = f"|D_f| {jobs.deleted} to {5 * jobs.deleted}, |D| {10 * jobs.small}"
    return _compared(rounds, "large short", "deleted short", what, LESS_THAN_FIVE)


def _compared(
    rounds: Sequence[Mapping[str, RunResult]], less: str, more: str, what: str, bar: Bar | None
) -> list[Figure]:
    def growth(name: str) -> list[float]:
        return [getattr(r[more].cost, name) / getattr(r[less].cost, name) for r in rounds]

    def seconds(job: str) -> list[float]:
        return [r[job].cost.seconds for r in rounds]

    return [
        median_figure(NAME, f"{what}: time of the job, times", growth("seconds"), "", bar),
        median_figure(NAME, f"{what}: time of the method, times", growth("method_seconds"), ""),
        median_figure(NAME, f"{what}: the job before", seconds(less), "s"),
        median_figure(NAME, f"{what}: the job after", seconds(more), "s"),
    ]


class _Scaling:
    """The jobs of one call, in a folder of their own."""

    def __init__(self, folder: Path, jobs: Jobs, threads: int, device: str) -> None:
        self.folder, self.jobs = folder, jobs
        preset = PRESETS[WITHOUT_DATA]
        family, setting = next(iter(preset.settings.items()))
        self.spec = RunSpec(
            action="train",
            data=self._manifest(jobs.small),
            family=family,
            task=preset.task,
            config=dict(setting.config),
            training={**setting.training, "epochs": 1},
            threads=threads,
            device=device,
        )
        _say("training the original")
        execute(self.spec, folder / "original")

    def round(self, number: int) -> dict[str, RunResult]:
        """Run each job once."""
        small, large = self._manifest(self.jobs.small), self._manifest(10 * self.jobs.small)
        few, many = self.jobs.deleted, 5 * self.jobs.deleted
        usual: Mapping[str, Any] = {}
        kinds = {
            "small": (small, few, usual),
            "large": (large, few, usual),
            "small short": (small, few, SHORT),
            "large short": (large, few, SHORT),
            "deleted short": (large, many, SHORT),
        }
        found = {}
        for name, (data, pairs, params) in kinds.items():
            _say(f"round {number + 1} of {self.jobs.rounds}: {name}")
            found[name] = self._unlearn(data, pairs, params, self.folder / f"{name}-{number}")
        return found

    def _unlearn(
        self, data: DataSpec, pairs: int, params: Mapping[str, Any], out: Path
    ) -> RunResult:
        rows = [row for row in _rows(data.manifest) if row["split"] == "train"]
        update = {
            "action": "unlearn",
            "data": data,
            "checkpoint": self.folder / "original" / CHECKPOINT,
            "method": "multidelete",
            "params": dict(params),
            "forget": {"request": [row["id"] for row in rows[:pairs]]},
        }
        return execute(self.spec.model_copy(update=update), out)

    def _manifest(self, training: int) -> DataSpec:
        """Return a data set with that many training pairs; the held-out pairs are the same."""
        root = self.folder / "digits"
        manifest = self.folder / f"{training}.jsonl"
        if not root.exists():
            # 80% of the pairs are training pairs.
            write_digits(root, pairs=round(10 * self.jobs.small / 0.8) + HELD_OUT)
        if not manifest.exists():
            wanted = {"train": training, "val": HELD_OUT, "test": HELD_OUT}
            with manifest.open("w", encoding="utf-8") as out:
                for row in _rows(root / "manifest.jsonl"):
                    if wanted[row["split"]] > 0:
                        wanted[row["split"]] -= 1
                        out.write(json.dumps(row) + "\n")
        return DataSpec(manifest=manifest, root=root)


def _say(doing: str) -> None:
    print(doing, file=sys.stderr, flush=True)


def _rows(manifest: Path) -> list[dict[str, Any]]:
    with manifest.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
