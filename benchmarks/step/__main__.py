"""``lethe bench step``: the engine's MultiDelete step beside a plain loop with the same loss.

Both loops run in turns on the same batches, so that other work on the machine slows both. The exit
status is 0 when every bar was met, 1 when one was missed, 2 when the benchmark could not be run.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import torch

from benchmarks.figures import (
    Bar,
    BenchmarkError,
    Figure,
    commit,
    median_figure,
    print_figures,
    write_figures,
)
from benchmarks.options import positive, require_writable, usable_device
from benchmarks.step import memory, scaling
from benchmarks.step.measure import Loop, Timings, compare, operations, race, rate, ratios
from benchmarks.step.plain import weights_of
from benchmarks.step.world import (
    SETTINGS,
    SIZES,
    Size,
    World,
    config_for,
    first_task,
    make_world,
)
from engine.environment import has_bf16
from engine.errors import EngineError
from engine.families import families
from engine.memory import keep_freed_memory
from engine.spec import Update
from engine.tasks import tasks

NAME = "step"
UPDATES: tuple[Update, ...] = ("all", "fusion")
LOOPS: tuple[Loop, ...] = ("plain", "engine")
SAME, NEAR = Bar("below", 1e-5), Bar("below", 1e-2)
FASTER = {"all": Bar("at least", 1.4), "fusion": Bar("at least", 6.0)}
FASTER_BF16, NO_MORE = Bar("at least", 2.5), Bar("at least", 1.0)
PEAKS = {"H200": 989e12, "H100 80GB HBM3": 989e12, "A100": 312e12}
"""Dense bf16 operations a second of a device, by a part of its name (NVIDIA's data sheets)."""
OF_A_STEP = {
    "preset": "--preset",
    "family": "--family",
    "task": "--task",
    "settings": "--settings",
    "update": "--update",
    "batch": "--batch",
    "steps": "--steps",
    "memory": "--no-memory",
    "peak": "--peak",
}
"""Options that would change nothing of whole jobs, by where argparse puts them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return the exit status."""
    try:
        given = _given(arguments)
        if given.side is not None:
            world = _world(given, given.settings[0], given.update[0])
            print(json.dumps({"bytes": memory.needed(world, given.side, given.threads)}))
            return 0
        keep_freed_memory()  # as every process of a run does
        figures = _scaling(given) if given.scaling else list(_figures(given))
    except (BenchmarkError, EngineError) as error:
        print(f"{memory.COMMAND}: {error}", file=sys.stderr)
        return 2
    print_figures(figures)
    about = {
        "device": _device_name(given.device),
        "threads": given.threads,
        "commit": commit(),
    }
    for name, value in about.items():
        print(f"{name}: {value}")
    if given.json is not None:
        write_figures(given.json, figures, about)
    return 0 if all(figure.held for figure in figures) else 1


def _given(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; what depends on another option is filled in.

    Raises:
        BenchmarkError: it names what cannot be measured, a device that is not here, or a file that
            cannot be written.
    """
    given = _parser().parse_args(arguments)
    if given.scaling:
        _refuse_options_of_a_step(arguments)
    size = SIZES[given.preset]
    given.batch, given.steps = given.batch or size.batch, given.steps or size.steps
    given.family = given.family or size.family
    given.task = given.task or first_task(given.family)
    config_for(given.family, given.task, size)
    given.device = usable_device(given.device)
    if given.json is not None:
        require_writable(given.json)
    return given


def _refuse_options_of_a_step(arguments: Sequence[str] | None) -> None:
    """Raise `BenchmarkError` that names the options beside ``--scaling`` that would do nothing."""
    nothing = argparse.Namespace(**dict.fromkeys(OF_A_STEP))  # also in place of defaults
    asked = _parser().parse_args(arguments, nothing)
    named = [option for name, option in OF_A_STEP.items() if getattr(asked, name) is not None]
    if named:
        raise BenchmarkError(
            f"--scaling times whole jobs, of which {', '.join(named)} would change nothing; leave "
            "out one or the other"
        )


def _scaling(given: argparse.Namespace) -> list[Figure]:
    jobs = scaling.Jobs(rounds=given.rounds)
    with TemporaryDirectory() as work:
        return scaling.measure(Path(work), jobs, given.threads, given.device)


def _figures(given: argparse.Namespace) -> Iterator[Figure]:
    ones = [_One(given, settings, update) for settings in given.settings for update in given.update]
    # First, in processes of their own: what this one keeps of the races would leave them no room.
    needed = [list(one.memory()) if given.memory else [] for one in ones]
    for one, memory_of_one in zip(ones, needed, strict=True):
        yield from one.figures()
        yield from memory_of_one


class _One:
    """The figures of one set of settings and one update."""

    def __init__(self, given: argparse.Namespace, settings: str, update: Update) -> None:
        self.given, self.settings, self.update = given, settings, update
        self.epochs = update == "fusion"
        self.what = f"{settings}{', -F' if self.epochs else ''}"
        # A tiny model spends its time between the operations: its ratios say nothing of a real one.
        self.judged = SIZES[given.preset].published

    @cached_property
    def world(self) -> World:
        """The model, the data and the steps that both loops take."""
        return _world(self.given, self.settings, self.update)

    def figures(self) -> Iterator[Figure]:
        """Yield every figure but those of `memory`."""
        given = self.given
        self._say("measuring times")
        terms = compare(self.world, threads=given.threads)
        note = "largest difference of a term from the plain loop's, on the same batch"
        yield Figure(NAME, f"{self.what}: loss in fp32", terms.difference, "", SAME, note)
        timings = race(self.world, epochs=given.rounds, threads=given.threads)
        yield from self._times(timings)
        yield from self._bf16()

    def _say(self, doing: str) -> None:
        what = f"{self.settings} settings, update={self.update}: {doing}"
        print(what, file=sys.stderr, flush=True)

    def _bar(self, bar: Bar) -> Bar | None:
        return bar if self.judged else None

    def _times(self, timings: Timings) -> Iterator[Figure]:
        unit = "epoch" if self.epochs else "step"
        name = f"{self.what}: plain beside engine, {unit}"
        bar = self._bar(FASTER[self.update])
        yield median_figure(NAME, name, ratios(timings, epochs=self.epochs), "", bar)
        if not self.given.device.startswith("cuda"):
            values = ratios(timings, epochs=self.epochs, kind="cpu")
            yield median_figure(NAME, f"{self.what}: the same in processor time", values, "")
        first = timings.epochs("plain", start=0)[0] / timings.epochs("engine", start=0)[0]
        note = "in which both loops touch all their memory, and the engine adds to what it keeps"
        yield Figure(NAME, f"{self.what}: the same in the first epoch", first, "", note=note)
        yield from self._job(timings)
        for loop in LOOPS:
            seconds = timings.epochs(loop) if self.epochs else timings.steps(loop)
            yield median_figure(NAME, f"{self.what}: {loop}, {unit}", seconds, "s")
        yield Figure(NAME, f"{self.what}: engine, pairs a second", rate(timings), "/s")

    def _job(self, timings: Timings) -> Iterator[Figure]:
        """Yield how a whole job of as many epochs as the task has by default compares."""
        epochs = weights_of(self.world.run).epochs
        plain, engine = (timings.job(loop, epochs) for loop in LOOPS)
        note = (
            f"{plain:,.1f} s to {engine:,.1f} s: the first epoch, and the others as the later ones"
        )
        name = f"{self.what}: plain beside engine, a job of {epochs} epochs"
        yield Figure(NAME, name, plain / engine, "", note=note)
        before = [timings.before[loop].wall for loop in LOOPS]
        note = f"{before[0]:,.1f} s and {before[1]:,.1f} s: targets, outputs of the teacher to keep"
        name = f"{self.what}: the same with what comes before the first epoch"
        yield Figure(NAME, name, (plain + before[0]) / (engine + before[1]), "", note=note)

    def _bf16(self) -> Iterator[Figure]:
        """Yield the figures in bf16 where the device has it."""
        given = self.given
        if not has_bf16(given.device):
            note = "the device has no bf16 arithmetic"
            yield Figure(NAME, f"{self.what}: bf16", 0.0, "", note=note)
            return
        terms = compare(self.world, precision="bf16", threads=given.threads)
        note = "largest difference of a term from the plain loop's in fp32"
        yield Figure(NAME, f"{self.what}: loss in bf16", terms.difference, "", NEAR, note)
        timings = race(self.world, epochs=given.rounds, threads=given.threads, precision="bf16")
        name = f"{self.what}: plain in fp32 beside engine in bf16"
        values = ratios(timings, epochs=self.epochs)
        bar = self._bar(FASTER_BF16) if self.update == "all" else None
        yield median_figure(NAME, name, values, "", bar)
        yield Figure(NAME, f"{self.what}: engine in bf16, pairs a second", rate(timings), "/s")
        work = operations(self.world, threads=given.threads)
        yield self._share(work, timings)

    def _share(self, work: float, timings: Timings) -> Figure:
        seconds = sorted(timings.steps("engine"))[len(timings.steps("engine")) // 2]
        name = f"{self.what}: engine in bf16, operations a second"
        device = _device_name(self.given.device)
        peak = next((value for part, value in PEAKS.items() if part in device), None)
        if self.given.peak is not None:
            peak = 1e12 * self.given.peak
        note = "the device's peak is not known here; --peak gives it"
        if peak is not None:
            note = f"{100 * work / seconds / peak:.1f}% of the device's dense bf16 peak"
        return Figure(NAME, name, work / seconds / 1e9, "G/s", note=note)

    def memory(self) -> Iterator[Figure]:
        """Yield what each loop needs beyond model and data."""
        given = self.given
        self._say("measuring memory")
        arguments = ["--preset", given.preset, "--family", given.family, "--task", given.task]
        arguments += ["--settings", self.settings, "--update", self.update]
        arguments += ["--device", given.device, "--threads", str(given.threads)]
        arguments += ["--batch", str(given.batch), "--steps", str(given.steps)]
        peaks = [memory.measured_in_own_process(arguments, loop) / 1e6 for loop in LOOPS]
        name = f"{self.what}: memory, plain beside engine"
        note = "beyond model and data, in two epochs"
        yield Figure(NAME, name, peaks[0] / peaks[1], "", self._bar(NO_MORE), note)
        for loop, peak in zip(LOOPS, peaks, strict=True):
            yield Figure(NAME, f"{self.what}: {loop}, peak memory", peak, "MB", note=note)
        if has_bf16(given.device):
            peak = memory.measured_in_own_process(arguments, "engine-bf16") / 1e6
            yield Figure(NAME, f"{self.what}: engine in bf16, peak memory", peak, "MB", note=note)


def _world(given: argparse.Namespace, settings: str, update: Update) -> World:
    size: Size = dataclasses.replace(SIZES[given.preset], batch=given.batch, steps=given.steps)
    return make_world(
        given.family, given.task, size, SETTINGS[settings], update=update, device=given.device
    )


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=memory.COMMAND,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--preset",
        choices=list(SIZES),
        default="tiny",
        help="sizes; base: albef as published, at 224 pixels; blip-base-384: blip, for GPUs",
    )
    add("--family", choices=list(families), help="another one than the preset's")
    add("--task", choices=list(tasks), help="the first that the family can do")
    add("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS), help="of the loss")
    add("--update", nargs="+", choices=UPDATES, default=list(UPDATES))
    add("--batch", type=positive, help="deleted pairs in a step")
    add("--steps", type=positive, help="in an epoch")
    add(
        "--rounds",
        type=positive,
        default=3,
        help="epochs that are timed, or whole jobs of a kind [3]",
    )
    add("--threads", type=positive, default=1)
    add("--device", default="auto", help="cpu, cuda, ... [auto: cuda where there is one]")
    add("--no-memory", dest="memory", action="store_false", help="leave the memory out")
    add("--scaling", action="store_true", help="time whole jobs on more data instead")
    add("--json", type=Path, metavar="FILE", help="write the figures here as well")
    add(
        "--peak", type=positive, metavar="TFLOPS", help="dense bf16 peak of a device not known here"
    )
    add("--side", choices=get_args(memory.Side), help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
