"""What can be asked of the engine, as JSON: ``python -m engine.catalogue``.

Families, tasks, methods and metrics with the JSON schemas of their parameters; and for every
family, task and update the reason why a method does not apply, or null. The service, which never
imports the engine, serves a file made by this and refuses a request before a job is queued.
"""

import inspect
import json
import sys
from typing import Any, get_args

import numpy as np
from pydantic import BaseModel

import engine.families
import engine.methods
import engine.metrics
import engine.tasks
from engine.families.base import PairModel, families
from engine.methods.base import Method, methods
from engine.metrics.base import Evidence, Observed, metrics
from engine.spec import Update
from engine.tasks.base import Task, tasks

Entry = dict[str, Any]

REGISTERED = (engine.families, engine.methods, engine.metrics, engine.tasks)
"""Imported so that their components are registered."""


def catalogue() -> Entry:
    """Return everything that can be asked of the engine, as plain data.

    Keys:
        families: name to ``summary, modality, set_by_data, config_schema, tiny_config``.
        tasks: name to ``summary, modalities, items_per_pair, least_items, labelled, classes,
            recipe_schema``; what they say of the data is as in `Task`.
        combinations: ``{family, task, modality}`` of each family that can do a task.
        methods: name to ``summary, guarantee, scopes, objectives, limitations, params_schema, applies``, where
            ``applies`` lists ``{family, task, update, reason}``; a null reason means that it does.
        metrics: name to ``summary, direction, unit``.
    """
    return {
        "families": {name: _family(families.get(name)) for name in families},
        "tasks": {name: _task(tasks.get(name)) for name in tasks},
        "combinations": _combinations(),
        "methods": {name: _method(methods.get(name)) for name in methods},
        "metrics": _metrics(),
    }


def render() -> str:
    """Return the catalogue as JSON text; the same components give the same bytes."""
    return json.dumps(catalogue(), indent=2, ensure_ascii=False) + "\n"


def _family(family: type[PairModel]) -> Entry:
    return {
        "summary": _summary(family),
        "modality": family.modality,
        "set_by_data": dict(family.set_by_data),
        "config_schema": _schema(family.config_class),
        "tiny_config": family.tiny().model_dump(mode="json"),
    }


def _task(task: type[Task]) -> Entry:
    return {
        "summary": _summary(task),
        "modalities": list(task.modalities),
        "items_per_pair": task.items_per_pair,
        "least_items": task.least_items,
        "labelled": task.labelled,
        "classes": list(task.classes),
        "recipe_schema": _schema(task.recipe),
    }


def _combinations() -> list[Entry]:
    return [
        {"family": family, "task": task, "modality": families.get(family).modality}
        for family in families
        for task in tasks
        if tasks.get(task).refusal(families.get(family)) is None
    ]


def _method(method: Method) -> Entry:
    return {
        "summary": method.summary,
        "guarantee": method.guarantee,
        "scopes": sorted(method.scopes),
        "objectives": sorted(method.aims),
        "limitations": list(method.limitations),
        "params_schema": _schema(method.params),
        "applies": [
            {"family": family, "task": task, "update": update, "reason": reason}
            for family in families
            for task in tasks
            for update in get_args(Update)
            for reason in [_refusal(method, family, task, update)]
        ],
    }


def _refusal(method: Method, family: str, task: str, update: Update) -> str | None:
    impossible = tasks.get(task).refusal(families.get(family))
    return impossible or method.refusal(family, task, update)


def _metrics() -> Entry:
    """Return what each metric function makes, found by calling it on one made-up pair."""
    one = Observed(scores=np.array([0.5]), outputs=np.array([[0.5, 0.5]]))
    nothing = Evidence("forget", deleted=one, retained=one, validation=one, unseen=one, seed=0)
    found = {}
    for name in metrics:
        function = metrics.get(name)
        for metric in function(nothing, nothing, "after"):
            found[metric.name] = {
                "summary": _summary(sys.modules[function.__module__]),
                "direction": metric.direction,
                "unit": metric.unit,
            }
    return dict(sorted(found.items()))


def _summary(component: object) -> str:
    return (inspect.getdoc(component) or "").partition("\n")[0]


def _schema(model: type[BaseModel]) -> Entry:
    return model.model_json_schema()


if __name__ == "__main__":
    sys.stdout.write(render())
