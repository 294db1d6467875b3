"""Tasks; importing this package registers them."""

from engine.tasks.base import Task, TrainingRecipe, tasks
from engine.tasks.graph_text import GraphText, GraphTextRecipe
from engine.tasks.retrieval import Retrieval, RetrievalRecipe

__all__ = [
    "GraphText",
    "GraphTextRecipe",
    "Retrieval",
    "RetrievalRecipe",
    "Task",
    "TrainingRecipe",
    "tasks",
]
