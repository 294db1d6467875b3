"""The ways to unlearn that are compared: the rows of the tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from benchmarks.figures import BenchmarkError
from engine.methods import methods
from engine.spec import Update

STUDIED, YARDSTICK = "multidelete", "retrain"
"""The method whose parts, growth and aims are looked into, and the one that it is compared with."""
ORDER = ("retrain", "finetune", "neggrad", "dtd", "lcodec", "erm_ktp", "ul", STUDIED)
"""Methods in the order of the paper's tables; others follow by name."""
CALIBRATED = "-calibrated"
"""Ends the row of a method that is asked for the other aim."""
FULL, WITHOUT_UKR = "full model", "- UKR"
ABLATIONS: Mapping[str, Mapping[str, Any]] = {
    FULL: {},
    "- MD": {"alpha": 0.0},
    WITHOUT_UKR: {"gamma": 0.0},
    "- MKR": {"beta": 0.0},
    "anchored": {"unrelated": "anchored"},
    "- balance": {"balanced": False},
    "- held-out": {"held_out": 0.0},
    "- mismatched": {"mismatched": 0.0},
    "- neighbours": {"neighbours": 0},
    "- fading": {"target": 0.0},
    "last epoch": {"keep": "last"},
    "last epoch, - MKR": {"keep": "last", "beta": 0.0},
    "last epoch, - MKR, - balance": {"keep": "last", "beta": 0.0, "balanced": False},
}
"""Rows of the paper's table 4, unrelated pairs that keep the deleted item, and what is not the paper's.

The last ones keep the last epoch whatever it cost: else the choice of the epoch holds the utility that
MKR is there to hold. Pairs that all end at an even chance of each class keep their side of it, and so their
accuracy; without balance they end at the chance that unrelated pairs have.
"""


@dataclass(frozen=True)
class Variant:
    """One way to unlearn: a row of a table."""

    row: str
    method: str
    update: Update = "all"
    params: Mapping[str, Any] = field(default_factory=dict)
    objective: str = "decouple"


MAPPINGS = (
    Variant("lcodec", "lcodec"),
    Variant("lcodec, no noise", "lcodec", params={"noise": 0.0}),
    Variant("lcodec, by gradient", "lcodec", params={"candidates": 16}),
    Variant("lcodec, one unit a step", "lcodec", params={"selected": 1}),
    Variant("erm_ktp", "erm_ktp"),
    Variant("erm_ktp, masks alone", "erm_ktp", params={"transfer": 0.0}),
    Variant("erm_ktp, transfer alone", "erm_ktp", params={"disentangle": 0.0}),
    Variant("ul", "ul"),
    Variant("ul-F", "ul", "fusion"),
    Variant(STUDIED, STUDIED),
    Variant(
        f"{STUDIED}, readout alone", STUDIED, params={"similarity": 0.0, "kept_similarity": 0.0}
    ),
    Variant(f"{STUDIED}-F", STUDIED, "fusion"),
    Variant(
        f"{STUDIED}-F, readout alone",
        STUDIED,
        "fusion",
        {"similarity": 0.0, "kept_similarity": 0.0},
    ),
)
"""What was chosen where the paper does not say how a method is carried over, beside what was not.

L-codec: units by dependence among those with the largest gradient, 16 changed at most, with noise.
ERM-KTP: masks and transfer. UL: the text side, or fusion. MultiDelete where a cosine ranks: the
readout and that cosine, under -F through the projections; else the readout is all there is. What the
readout reads and what -F trains are choices of the family (`benchmarks.paper.alternatives`).
"""


def variants(rows: Sequence[str] = ()) -> list[Variant]:
    """Return every registered method, with each update, or those of ``rows``.

    Raises:
        BenchmarkError: a row is unknown.
    """
    ranked = sorted(methods, key=lambda name: (*_rank(name), name))
    found = [
        Variant(name if update == "all" else f"{name}-F", name, update)
        for name in ranked
        for update in get_args(Update)
    ]
    found.append(Variant(STUDIED + CALIBRATED, STUDIED, objective="calibrated"))
    known = [variant.row for variant in found]
    unknown = [row for row in rows if row not in known]
    if unknown:
        raise BenchmarkError(f"{', '.join(unknown)}: unknown; known are {', '.join(known)}")
    return [variant for variant in found if not rows or variant.row in rows]


def _rank(name: str) -> tuple[int]:
    return (ORDER.index(name) if name in ORDER else len(ORDER),)
