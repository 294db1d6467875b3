"""NLVR (Suhr et al. 2019): is the statement about the two images of a pair true?"""

from engine.data.labels import TRUTH
from engine.tasks.base import BatchSize, Epochs, LearningRate, TrainingRecipe, tasks
from engine.tasks.classification import Classification


class NlvrRecipe(TrainingRecipe):
    """Defaults for some ten thousand pairs and a model that starts from nothing."""

    epochs: Epochs = 20
    batch_size: BatchSize = 128
    learning_rate: LearningRate = 5e-4


@tasks.register("nlvr")
class Nlvr(Classification):
    """Classification of a statement about two images: false or true."""

    name = "nlvr"
    modalities = ("image",)
    items_per_pair = 2
    classes = TRUTH
    recipe = NlvrRecipe
