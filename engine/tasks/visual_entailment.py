"""Visual entailment (Xie et al. 2019): does the image entail, contradict or leave open the text?"""

from engine.data.labels import ENTAILMENT
from engine.tasks.base import BatchSize, Epochs, LearningRate, TrainingRecipe, tasks
from engine.tasks.classification import Classification


class VisualEntailmentRecipe(TrainingRecipe):
    """Defaults for some ten thousand pairs and a model that starts from nothing."""

    epochs: Epochs = 20
    batch_size: BatchSize = 128
    learning_rate: LearningRate = 5e-4


@tasks.register("visual_entailment")
class VisualEntailment(Classification):
    """Classification of an image and a hypothesis: contradiction, neutral or entailment."""

    name = "visual_entailment"
    modalities = ("image",)
    classes = ENTAILMENT
    recipe = VisualEntailmentRecipe
