"""Where the pairs of each request ended, by its own audit: a checkpoint tells it to later runs.

What a run does moves the pairs of earlier requests, too, each time a little. A method that is to
keep them where they were has to know where that was, or what it allows adds up over many runs.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from engine.division import Division
from engine.spec import Frozen, Metric, RunSpec


class Step(Frozen, extra="allow"):
    """What is read of one run in the list ``unlearning`` of a checkpoint's card.

    Attributes:
        d_f: D_f of the pairs of each request of that run, by the request's id.
    """

    d_f: dict[str, float] = Field(default_factory=dict)


class History(Frozen, extra="allow"):
    """What is read of a checkpoint's card: its runs, the first one first."""

    unlearning: list[Step] = Field(default_factory=list)


def levels(history: History, spec: RunSpec, division: Division) -> Tensor:
    """Return for each pair forgotten earlier the D_f of its request ``(G,)``; NaN where none is told."""
    told: dict[str, float] = {}
    for step in history.unlearning:
        told = {**step.d_f, **told}  # what a pair's first request was told is what was promised
    known = [told.get(name, math.nan) for name in spec.forgotten]
    return torch.tensor(known, dtype=torch.float32)[division.forgotten_by]


def measured(metrics: Sequence[Metric], requests: Mapping[str, Any]) -> dict[str, float]:
    """Return D_f after the run by request, where the audit has a value."""
    after = {m.subset: m.value for m in metrics if m.name == "d_f" and m.moment == "after"}
    found = {name: after.get(f"request:{name}", after.get("forget")) for name in requests}
    return {name: value for name, value in found.items() if value is not None}
