"""Evidence made of plain numbers."""

from collections.abc import Callable

import numpy as np
import pytest

from engine.metrics import Evidence, Observed

Make = Callable[..., Evidence]


def observed(scores: object, outputs: object = None, labels: object = None) -> Observed:
    values = np.asarray(scores, dtype=np.float64)
    given = np.stack([values, 1 - values], axis=1) if outputs is None else np.asarray(outputs)
    classes = None if labels is None else np.asarray(labels, dtype=np.int64)
    return Observed(scores=values, outputs=given, labels=classes)


@pytest.fixture
def make_evidence() -> Make:
    """Return a maker of evidence; sets that are left out hold one pair of score 0.5."""

    def make(**sets: Observed | int) -> Evidence:
        seed = sets.pop("seed", 0)
        one = observed([0.5])
        names = ("deleted", "retained", "validation", "unseen")
        return Evidence(subset="forget", seed=seed, **{name: sets.get(name, one) for name in names})

    return make


@pytest.fixture
def observe() -> Callable[..., Observed]:
    return observed


@pytest.fixture
def sure_outputs() -> Callable[[int, float, int], Observed]:
    """Return a maker of n pairs with four classes, as sure as a sharpness says, by a seed."""

    def make(n: int, sharpness: float, seed: int) -> Observed:
        random = np.random.default_rng(seed)
        logits = random.normal(size=(n, 4))
        logits[:, 0] += sharpness
        outputs = np.exp(logits)
        outputs /= outputs.sum(axis=1, keepdims=True)
        return observed(outputs[:, 0], outputs)

    return make
