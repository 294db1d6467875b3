"""Classification of (graph, text) pairs: does the text state a relation of the two nodes?"""

from engine.tasks.base import BatchSize, Epochs, LearningRate, TrainingRecipe, tasks
from engine.tasks.classification import Classification


class GraphTextRecipe(TrainingRecipe):
    """Defaults for a few thousand pairs."""

    epochs: Epochs = 20
    batch_size: BatchSize = 64
    learning_rate: LearningRate = 5e-4


@tasks.register("graph_text")
class GraphText(Classification):
    """Cross-entropy on C classes; the pair score is the probability of the true class."""

    name = "graph_text"
    modalities = ("graph",)
    recipe = GraphTextRecipe
