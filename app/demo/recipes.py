"""What the demo trains for each task: family, sizes and recipe, in one table."""

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
        parallel: whether a step is large enough that several cores make it faster.
    """

    family: str
    task: str
    config: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    parallel: bool = True


_SMALL_ALBEF: Mapping[str, Any] = {
    "image_size": [72, 72],
    "patch_size": [12, 12],
    "hidden_size": 128,
    "vision_layers": 3,
    "text_layers": 4,
    "feed_forward": 2,
    "projection_size": 128,
    "vocabulary": 4000,
    "max_text_tokens": 32,
}

# The best of many epochs on few validation pairs is partly luck on these, which forgetting loses.
_LAST: Mapping[str, Any] = {"keep": "last"}

# Small enough for two cores: an ALBEF that starts from nothing, a GCN beside a frozen encoder.
# By task, or by format where one has a recipe of its own.
RECIPES: Mapping[str, Recipe] = {
    "digits": Recipe(
        "albef",
        "retrieval",
        config={
            "image_size": [16, 64],
            "patch_size": [16, 16],
            "hidden_size": 64,
            "vision_layers": 3,
            "text_layers": 4,
            "feed_forward": 2,
            "projection_size": 64,
            "vocabulary": 300,
            "max_text_tokens": 16,
        },
        training={"epochs": 60, "batch_size": 64, "learning_rate": 0.002},
        parallel=False,
    ),
    "retrieval": Recipe(
        "clip",
        "retrieval",
        # Large patches and a text tower of one layer: from a few thousand drawings with a few words
        # each, this learns more in two minutes than deeper towers do.
        config={
            "image_size": 72,
            "patch_size": 36,
            "vision_size": 128,
            "vision_layers": 2,
            "vision_feed_forward": 256,
            "text_size": 128,
            "text_layers": 1,
            "text_feed_forward": 256,
            "projection_size": 128,
            "vocabulary": 4000,
            "max_text_tokens": 32,
        },
        training={"epochs": 40, "batch_size": 128, "learning_rate": 0.001},
    ),
    "visual_entailment": Recipe(
        "albef",
        "visual_entailment",
        config=_SMALL_ALBEF,
        training={"epochs": 10, "batch_size": 128, "learning_rate": 0.001, **_LAST},
    ),
    "nlvr": Recipe(
        "albef",
        "nlvr",
        config=_SMALL_ALBEF,
        training={"epochs": 20, "batch_size": 128, "learning_rate": 0.001, **_LAST},
    ),
    "graph_text": Recipe("gcn_bert", "graph_text", training=_LAST),
}


def recipe_for(data_format: str, task: str) -> Recipe:
    """Return the recipe of a format where it has one of its own, else that of its task."""
    return RECIPES.get(data_format) or RECIPES[task]
