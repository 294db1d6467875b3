"""Where a reference model keeps its progress, its training state, and what came of it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine.metrics.base import Floats
from engine.monitor import Monitor
from engine.spec import Progress

Both = tuple[Floats, Floats]
"""Scores ``(n,)`` by one model before and after unlearning."""


def monitor_of(monitor: Monitor, name: str) -> Monitor:
    """Return a monitor whose phases, state folder and fingerprint belong to one reference model."""
    listener = monitor.on_progress

    def renamed(event: Progress) -> None:
        phase = name if event.phase == "train" else f"{name}-{event.phase}"
        if listener is not None:
            listener(event.model_copy(update={"phase": phase}))

    return replace(
        monitor,
        on_progress=None if listener is None else renamed,
        state=None if monitor.state is None else monitor.state / name,
        fingerprint=f"{monitor.fingerprint}:{name}",
    )


def read_scores(file: Path, fingerprint: str) -> Both | None:
    """Return what `write_scores` wrote for the same run, or None."""
    if not file.is_file():
        return None
    saved = json.loads(file.read_text(encoding="utf-8"))
    if saved["fingerprint"] != fingerprint:
        return None
    return np.array(saved["before"]), np.array(saved["after"])


def write_scores(file: Path, fingerprint: str, scores: Both) -> None:
    """Write the scores of a reference model whole or not at all."""
    before, after = (found.tolist() for found in scores)
    text = json.dumps({"fingerprint": fingerprint, "before": before, "after": after})
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(file)
