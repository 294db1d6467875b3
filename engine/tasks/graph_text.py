"""Classification of (graph, text) pairs: does the text state a relation of the two nodes?"""

from pydantic import Field

from engine.tasks.base import TrainingRecipe, tasks
from engine.tasks.classification import Classification


class GraphTextRecipe(TrainingRecipe):
    """Defaults for a few thousand pairs."""

    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=64, ge=2)
    learning_rate: float = Field(default=5e-4, gt=0)


@tasks.register("graph_text")
class GraphText(Classification):
    """Cross-entropy on C classes; the pair score is the probability of the true class."""

    name = "graph_text"
    modalities = ("graph",)
    recipe = GraphTextRecipe
