"""Lethe's engine: train multimodal models, make them forget pairs, measure both.

It is a library of its own. What needs torch is imported on first use, so that the data tools
start at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from engine.spec import DataSpec, Metric, Progress, RunResult, RunSpec

if TYPE_CHECKING:
    from engine.checkpoints import LoadedCheckpoint, load_checkpoint, save_checkpoint
    from engine.data.manifest import load_dataset
    from engine.run import run

__all__ = [
    "DataSpec",
    "LoadedCheckpoint",
    "Metric",
    "Progress",
    "RunResult",
    "RunSpec",
    "load_checkpoint",
    "load_dataset",
    "run",
    "save_checkpoint",
]

_PLACES = {
    "LoadedCheckpoint": "engine.checkpoints",
    "load_checkpoint": "engine.checkpoints",
    "load_dataset": "engine.data.manifest",
    "run": "engine.run",
    "save_checkpoint": "engine.checkpoints",
}


def __getattr__(name: str) -> object:
    """Import what is asked for the first time."""
    if name not in _PLACES:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    found: object = getattr(import_module(_PLACES[name]), name)
    return found
