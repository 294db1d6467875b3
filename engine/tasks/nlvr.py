"""NLVR (Suhr et al. 2019): is the statement about the two images of a pair true?"""

from pydantic import Field

from engine.data.labels import TRUTH
from engine.tasks.base import TrainingRecipe, tasks
from engine.tasks.classification import Classification


class NlvrRecipe(TrainingRecipe):
    """Defaults for some ten thousand pairs and a model that starts from nothing."""

    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=128, ge=2)
    learning_rate: float = Field(default=5e-4, gt=0)


@tasks.register("nlvr")
class Nlvr(Classification):
    """Classification of a statement about two images: false or true."""

    name = "nlvr"
    modalities = ("image",)
    items_per_pair = 2
    classes = TRUTH
    recipe = NlvrRecipe
