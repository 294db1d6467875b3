"""Visual entailment (Xie et al. 2019): does the image entail, contradict or leave open the text?"""

from pydantic import Field

from engine.data.labels import ENTAILMENT
from engine.tasks.base import TrainingRecipe, tasks
from engine.tasks.classification import Classification


class VisualEntailmentRecipe(TrainingRecipe):
    """Defaults for some ten thousand pairs and a model that starts from nothing."""

    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=128, ge=2)
    learning_rate: float = Field(default=5e-4, gt=0)


@tasks.register("visual_entailment")
class VisualEntailment(Classification):
    """Classification of an image and a hypothesis: contradiction, neutral or entailment."""

    name = "visual_entailment"
    modalities = ("image",)
    classes = ENTAILMENT
    recipe = VisualEntailmentRecipe
