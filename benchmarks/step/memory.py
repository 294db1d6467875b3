"""How much memory each loop needs beyond the model and the prepared data, in a process of its own."""

import json
import os
import subprocess
import sys
from typing import Literal

import torch

from benchmarks.figures import BenchmarkError
from benchmarks.memory import watched
from benchmarks.runs import ROOT
from benchmarks.step.measure import plain_alone, race
from benchmarks.step.world import World
from engine.spec import Precision

COMMAND = "lethe bench step"
"""What sentences of a benchmark that could not be run begin with."""
Side = Literal["plain", "engine", "engine-bf16"]
EPOCHS = 1
"""After the first, in which neither loop has a best checkpoint yet."""
EXACT = {"MALLOC_MMAP_THRESHOLD_": str(2**18)}
"""Lets the C library give large blocks back at once, so that what was freed is not counted."""


def measured_in_own_process(arguments: list[str], side: Side) -> float:
    """Return the bytes that a loop needed, with the options of the command that is running.

    Raises:
        BenchmarkError: the process failed.
    """
    command = [sys.executable, "-m", "benchmarks.step", *arguments, "--side", side]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **EXACT}
    )
    if done.returncode:
        reason = done.stderr.strip().removeprefix(f"{COMMAND}: ")
        raise BenchmarkError(f"the memory of the {side} loop: {reason[-1000:]}")
    return float(json.loads(done.stdout)["bytes"])


def needed(world: World, side: Side, threads: int) -> float:
    """Return the bytes that two epochs of a loop needed at most, here and now."""
    device = world.run.teacher.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        _run(world, side, threads)
        return float(torch.cuda.max_memory_allocated(device) - before)
    with watched(os.getpid()) as memory:
        _run(world, side, threads)
    return float(memory.peak - memory.before)


def _run(world: World, side: Side, threads: int) -> None:
    if side == "plain":
        plain_alone(world, epochs=EPOCHS, threads=threads)
    else:
        precision: Precision = "bf16" if side == "engine-bf16" else "fp32"
        race(world, epochs=EPOCHS, threads=threads, plain=False, precision=precision)
