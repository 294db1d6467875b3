"""Measures of forgetting on arrays of scores and outputs. Importing this registers all of them."""

from engine.metrics import accuracy, forgetting, membership, probes, ulira, unseen
from engine.metrics.base import Evidence, ForgettingMetric, Observed, metrics

__all__ = [
    "Evidence",
    "ForgettingMetric",
    "Observed",
    "accuracy",
    "forgetting",
    "membership",
    "metrics",
    "probes",
    "ulira",
    "unseen",
]
