"""Teachers that have learned their tiny data, and unlearning runs that start from them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from engine.data.pairs import PairDataset
from engine.families import PairModel, families
from engine.inputs import Inputs
from engine.methods import methods
from engine.monitor import Monitor
from engine.spec import Update
from engine.tasks import Task, TrainingRecipe, tasks
from engine.training import TaskObjective, fit, recipe_schedule
from engine.unlearning import Unlearning

TASKS = {"albef": "retrieval", "gcn_bert": "graph_text"}
RECIPES = {
    "albef": TrainingRecipe(epochs=80, batch_size=12, learning_rate=2e-3),
    "gcn_bert": TrainingRecipe(epochs=25, batch_size=12, learning_rate=2e-3),
}
FORGET, FORGOTTEN = 6, 3

Learned = tuple[PairModel, Inputs, PairDataset]
Unlearn = Callable[..., Unlearning]


@pytest.fixture(scope="session")
def learned(image_data: PairDataset, graph_data: PairDataset) -> Callable[[str], Learned]:
    """The trained tiny model of a family, made once, with its inputs and data."""
    made: dict[str, Learned] = {}
    data = {"image": image_data, "graph": graph_data}

    def get(family: str) -> Learned:
        if family not in made:
            kind = families.get(family)
            dataset = data[kind.modality]
            model = kind.build(kind.tiny(), dataset, 0)
            inputs = Inputs(model, dataset)
            _train(model, inputs, tasks.get(TASKS[family])())
            made[family] = (model.requires_grad_(requires_grad=False), inputs, dataset)
        return made[family]

    return get


def _train(model: PairModel, inputs: Inputs, task: Task) -> None:
    model.set_trainable("all")
    train, val = inputs.split("train"), inputs.split("val")
    recipe = RECIPES[model.family]
    objective = TaskObjective(task, model, inputs, train, val, recipe.batch_size)
    schedule = replace(recipe_schedule(recipe), validate_every=recipe.epochs)
    fit(model, objective, schedule, phase="train", seed=0, monitor=Monitor())


@pytest.fixture
def unlearn(learned: Callable[[str], Learned]) -> Unlearn:
    """A function that prepares the unlearning of six pairs, after three were forgotten before."""

    def prepare(
        family: str, method: str, *, update: Update = "all", seed: int = 0, **params: object
    ) -> Unlearning:
        teacher, inputs, dataset = learned(family)
        train = inputs.split("train")
        gone = set(train[: FORGET + FORGOTTEN].tolist())

        def fresh() -> tuple[PairModel, Inputs]:
            kept = [pair for row, pair in enumerate(dataset.pairs) if row not in gone]
            model = type(teacher).build(type(teacher).tiny(), replace(dataset, pairs=kept), seed)
            return model, Inputs(model, dataset)

        return Unlearning(
            teacher=teacher,
            task=tasks.get(TASKS[family])(),
            inputs=inputs,
            forget=train[:FORGET],
            retain=train[FORGET + FORGOTTEN :],
            forgotten=train[FORGET : FORGET + FORGOTTEN],
            validation=inputs.split("val"),
            params=methods.get(method).params(**params),
            update=update,
            recipe=RECIPES[family],
            seed=seed,
            monitor=Monitor(),
            fresh=fresh,
        )

    return prepare


@pytest.fixture
def scores() -> Callable[[Unlearning, PairModel, Tensor], Tensor]:
    """Pair scores of a model on rows."""

    def get(run: Unlearning, model: PairModel, rows: Tensor) -> Tensor:
        with _still(model):
            return run.task.scores(model, run.inputs, rows)

    return get


@contextmanager
def _still(model: PairModel) -> Iterator[None]:
    model.eval()
    with torch.no_grad():
        yield
