"""Tasks; importing this package registers them."""

from engine.tasks.base import Task, TrainingRecipe, tasks
from engine.tasks.classification import Classification
from engine.tasks.graph_text import GraphText, GraphTextRecipe
from engine.tasks.nlvr import Nlvr, NlvrRecipe
from engine.tasks.retrieval import Retrieval, RetrievalRecipe
from engine.tasks.visual_entailment import VisualEntailment, VisualEntailmentRecipe

__all__ = [
    "Classification",
    "GraphText",
    "GraphTextRecipe",
    "Nlvr",
    "NlvrRecipe",
    "Retrieval",
    "RetrievalRecipe",
    "Task",
    "TrainingRecipe",
    "VisualEntailment",
    "VisualEntailmentRecipe",
    "tasks",
]
