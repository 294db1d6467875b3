"""Where the pairs of each request ended, by its own audit: a checkpoint tells it to later runs.

What a run does moves the pairs of earlier requests, too, each time a little. A method that is to
keep them where they were has to know where that was, or what it allows adds up over many runs.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field, ValidationError
from torch import Tensor

from engine.division import Division
from engine.methods import methods
from engine.spec import Frozen, Metric, RunSpec

Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False, strict=True)]


class Step(Frozen, extra="ignore"):
    """What is read of one run in the list ``unlearning`` of a checkpoint's card.

    Attributes:
        method: what the run forgot with.
        parent_sha256: of the checkpoint that it started from.
        d_f: D_f of the pairs of each request of that run, by `key`.
    """

    method: str = ""
    parent_sha256: str = ""
    d_f: dict[str, Percent] = Field(default_factory=dict)


def key(parent_sha256: str, request: str) -> str:
    """Return what stands for a request in a card: only who knows its id can find it there."""
    return hashlib.sha256(f"{parent_sha256} {request}".encode()).hexdigest()[:16]


def levels(card: Mapping[str, Any], spec: RunSpec, division: Division) -> Tensor:
    """Return for each pair forgotten earlier the D_f of its request ``(G,)``; NaN where none is told.

    A model that was trained anew never saw what was forgotten before it: of that nothing is told. What
    does not look like a run of ours tells nothing either; a checkpoint may come from elsewhere.
    """
    told: dict[str, float] = {}
    for step in map(_step, history(card)):
        if step.method in methods and methods.get(step.method).guarantee == "exact":
            told = {}
        for name in spec.forgotten:
            level = step.d_f.get(key(step.parent_sha256, name))
            if level is not None:
                told.setdefault(name, level)  # what its first audit told was promised
    known = [told.get(name, math.nan) for name in spec.forgotten]
    return torch.tensor(known, dtype=torch.float32)[division.forgotten_by]


def history(card: Mapping[str, Any]) -> list[Any]:
    """Return what a card says of earlier runs; nothing, where that is no list."""
    given = card.get("unlearning")
    return given if isinstance(given, list) else []


def _step(given: object) -> Step:
    try:
        return Step.model_validate(given)
    except ValidationError:
        return Step()


def measured(metrics: Sequence[Metric], division: Division, parent_sha256: str) -> dict[str, float]:
    """Return D_f after the run by `key` of each request, where the audit has a value.

    Of a request that names pairs which were forgotten before, it is D_f of all that this run forgot.
    """
    after = {m.subset: m.value for m in metrics if m.name == "d_f" and m.moment == "after"}
    found = {}
    for name, rows in division.requests.items():
        own = bool(torch.isin(rows, division.forget).all())
        value = after.get(f"request:{name}") if own else None
        value = after.get("forget") if value is None else value
        if value is not None:
            found[key(parent_sha256, name)] = value
    return found
