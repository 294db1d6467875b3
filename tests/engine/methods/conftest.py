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
from engine.spec import Aim, Update
from engine.tasks import Task, TrainingRecipe, tasks
from engine.training import TaskObjective, fit, recipe_schedule
from engine.unlearning import Unlearning

TASKS = {"albef": "retrieval", "gcn_bert": "graph_text"}
"""The task of a family where a test names none."""
RECIPES = {
    "retrieval": TrainingRecipe(epochs=80, batch_size=12, learning_rate=2e-3),
    "graph_text": TrainingRecipe(epochs=25, batch_size=12, learning_rate=2e-3),
    "visual_entailment": TrainingRecipe(epochs=25, batch_size=12, learning_rate=2e-3),
    "nlvr": TrainingRecipe(epochs=25, batch_size=12, learning_rate=2e-3),
}
FORGET, FORGOTTEN = 6, 3

Learned = tuple[PairModel, Inputs, PairDataset]
Learn = Callable[..., Learned]
Unlearn = Callable[..., Unlearning]


def labelled(dataset: PairDataset, classes: int, images: int) -> PairDataset:
    """The pairs of a data set with labels in turns, and with the images that follow as well."""
    pairs = [
        replace(
            pair,
            label=row % classes,
            items=tuple(dataset.pairs[row - k].items[0] for k in range(images)),
            item_ids=tuple(dataset.pairs[row - k].item_ids[0] for k in range(images)),
        )
        for row, pair in enumerate(dataset.pairs)
    ]
    return replace(dataset, pairs=pairs, classes=classes)


@pytest.fixture(scope="session")
def learned(image_data: PairDataset, graph_data: PairDataset) -> Learn:
    """The tiny model of a family for a task, trained or as built, with its inputs and data."""
    made: dict[tuple[str, str, bool], Learned] = {}
    data = {
        "retrieval": image_data,
        "graph_text": graph_data,
        "visual_entailment": labelled(image_data, 3, images=1),
        "nlvr": labelled(image_data, 2, images=2),
    }

    def get(family: str, task: str | None = None, *, trained: bool = True) -> Learned:
        key = (family, task or TASKS[family], trained)
        if key not in made:
            kind, dataset = families.get(family), data[key[1]]
            model = kind.build(kind.tiny(), dataset, 0)
            inputs = Inputs(model, dataset)
            if trained:
                _train(model, inputs, tasks.get(key[1])())
            made[key] = (model.requires_grad_(requires_grad=False), inputs, dataset)
        return made[key]

    return get


def _train(model: PairModel, inputs: Inputs, task: Task) -> None:
    model.set_trainable("all")
    train, val = inputs.split("train"), inputs.split("val")
    recipe = RECIPES[task.name]
    objective = TaskObjective(task, model, inputs, train, val, recipe.batch_size)
    schedule = replace(recipe_schedule(recipe), validate_every=recipe.epochs)
    fit(model, objective, schedule, phase="train", seed=0, monitor=Monitor())


@pytest.fixture
def unlearn(learned: Learn) -> Unlearn:
    """A function that prepares the unlearning of six pairs, after three were forgotten before."""

    def prepare(
        family: str,
        method: str,
        *,
        task: str | None = None,
        update: Update = "all",
        aim: Aim = "decouple",
        seed: int = 0,
        trained: bool = True,
        **params: object,
    ) -> Unlearning:
        task = task or TASKS[family]
        teacher, inputs, dataset = learned(family, task, trained=trained)
        train = inputs.split("train")
        gone = set(train[: FORGET + FORGOTTEN].tolist())

        def fresh() -> tuple[PairModel, Inputs]:
            kept = [pair for row, pair in enumerate(dataset.pairs) if row not in gone]
            model = type(teacher).build(type(teacher).tiny(), replace(dataset, pairs=kept), seed)
            return model, Inputs(model, dataset)

        return Unlearning(
            teacher=teacher,
            task=tasks.get(task)(),
            inputs=inputs,
            forget=train[:FORGET],
            retain=train[FORGET + FORGOTTEN :],
            forgotten=train[FORGET : FORGET + FORGOTTEN],
            forgotten_by=torch.zeros(FORGOTTEN, dtype=torch.int64),
            forgotten_d_f=torch.full((FORGOTTEN,), torch.nan),
            validation=inputs.split("val"),
            params=methods.get(method).params(**params),
            update=update,
            aim=aim,
            recipe=RECIPES[task],
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
