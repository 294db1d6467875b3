"""What the demo trains on each kind of data: family, task, sizes and recipe, in one table."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """How an original is made for one kind of data.

    Attributes:
        family: architecture.
        task: what it is trained for.
        config: of the family; what is left out has the family's default.
        training: of the task; the same.
    """

    family: str
    task: str
    config: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)


# Small enough for two cores: an ALBEF that starts from nothing, a GCN beside a frozen encoder.
RECIPES: Mapping[str, Recipe] = {
    "digits": Recipe(
        "albef",
        "retrieval",
        config={
            "image_size": [16, 64],
            "patch_size": [8, 8],
            "hidden_size": 64,
            "vision_layers": 2,
            "text_layers": 4,
            "projection_size": 64,
            "vocabulary": 300,
            "max_text_tokens": 16,
        },
        training={"epochs": 20},
    ),
    "image": Recipe(
        "albef",
        "retrieval",
        config={
            "image_size": [48, 48],
            "patch_size": [8, 8],
            "hidden_size": 64,
            "vision_layers": 2,
            "text_layers": 4,
            "projection_size": 64,
            "max_text_tokens": 32,
        },
        training={"epochs": 20},
    ),
    "graph": Recipe("gcn_bert", "graph_text"),
}


def recipe_for(data_format: str, modality: str) -> Recipe:
    """Return the recipe of a format where it has one of its own, else that of its modality."""
    return RECIPES.get(data_format) or RECIPES[modality]
