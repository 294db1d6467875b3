"""Measures of forgetting on arrays of scores and outputs. Importing this registers all of them."""

from engine.metrics import forgetting, membership, unseen
from engine.metrics.base import Evidence, ForgettingMetric, Observed, metrics

__all__ = [
    "Evidence",
    "ForgettingMetric",
    "Observed",
    "forgetting",
    "membership",
    "metrics",
    "unseen",
]
