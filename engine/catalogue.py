"""What can be asked of the engine, as JSON: ``python -m engine.catalogue``.

Families, tasks, methods and metrics with the JSON schemas of their parameters, and the formats that
``lethe convert`` reads; and for every family, task and update the reason why a method does not
apply, or null. The service, which never imports the engine, serves a file made by this and refuses
a request before a job is queued.
"""

import inspect
import json
import sys
from collections.abc import Sequence
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from pydantic import BaseModel

import engine.families
import engine.methods
import engine.metrics
import engine.tasks
from engine.audit import cost_metrics
from engine.data.convert import BUILT_IN, summary_of
from engine.data.formats import Format, ImageFormat, formats
from engine.families.base import PairModel, families
from engine.inputs import Inputs
from engine.methods.base import Method, methods
from engine.methods.selection import excess_metric
from engine.metrics.base import Evidence, Observed, metrics
from engine.output import own_output
from engine.spec import Cost, Metric, Update
from engine.tasks.base import Task, tasks
from engine.tasks.recall import DEPTHS, DIRECTIONS

Entry = dict[str, Any]
Kind = Literal["forgetting", "utility", "cost"]

REGISTERED = (engine.families, engine.methods, engine.metrics, engine.tasks, *BUILT_IN)
"""Imported so that their components are registered."""

SUMMARIES = {
    "d_test": "How well the task is done on held-out pairs: the mean of six recalls, or the accuracy.",
    "f1": "F1 on held-out pairs: of class 1 where there are two, the mean over classes otherwise.",
    **{
        f"{direction}_r{depth}": f"Recall at {depth}: of 100 held-out {query}s, how many have a right "
        f"{found} among their best {depth}."
        for direction, query, found in zip(
            DIRECTIONS, ("text", "image"), ("image", "text"), strict=True
        )
        for depth in DEPTHS
    },
    "utility_excess": "What the epoch that MultiDelete or NegGrad kept lost on validation pairs beyond what the "
    "request granted (`utility_drop`, beside one standard error): 0 where it stayed within it.",
    "method_seconds": "Time that the method itself took, without loading, measuring and saving.",
    "peak_memory_bytes": "The most memory that the run held at any time, of the GPU if it had one.",
    "trained_parameters": "Numbers in the model that the method was allowed to change.",
    "samples_seen": "Pairs that the method went through, each counted as often as it came.",
    "mi_ratio": "How much a membership attack believes that deleted pairs were learned, before divided by "
    "after: above 1, they are exposed less.",
    "mi_attack_auc": "How well that attack tells pairs that were learned from held-out ones: 0.5 is by "
    "chance, and then its ratio says little.",
    "mi_tpr_at_1pct_fpr": "Of the pairs that were learned, the share that this attack finds while it takes 1 "
    "in 100 held-out ones for learned.",
    "probe_item": "How well a simple classifier on the image's or graph's vector alone does on deleted "
    "pairs: kept knowledge of one modality.",
    "probe_text": "How well a simple classifier on the text's vector alone does on deleted pairs: kept "
    "knowledge of one modality.",
    "ulira_auc": "How well an attack fitted to each pair by reference models (U-LiRA) finds the deleted "
    "pairs among never seen ones: 0.5 finds nothing.",
    "ulira_tpr_at_1pct_fpr": "Of the deleted pairs, the share that this attack finds while it is wrong about "
    "1 in 100 never seen ones.",
    "ulira_tpr_at_0.1pct_fpr": "Of the deleted pairs, the share that this attack finds while it is wrong "
    "about 1 in 1,000 never seen ones.",
}
"""Of metrics that no module of their own describes: of tasks, of cost, and several of one module."""


def catalogue() -> Entry:
    """Return everything that can be asked of the engine, as plain data.

    Keys:
        families: name to ``summary, modality, set_by_data, config_schema, tiny_config``.
        tasks: name to ``summary, modalities, items_per_pair, least_items, labelled, classes,
            recipe_schema``; what they say of the data is as in `Task`.
        combinations: ``{family, task, modality}`` of each family that can do a task.
        methods: name to ``summary, guarantee, scopes, objectives, limitations, params_schema, applies``, where
            ``applies`` lists ``{family, task, update, reason}``; a null reason means that it does.
        metrics: name to ``summary, kind, direction, unit, tasks``. ``kind`` is ``forgetting``,
            ``utility`` on held-out pairs, of the tasks that are listed, or ``cost``.
        formats: name to ``summary, images_apart``: whether images may lie elsewhere than the rows.
    """
    return {
        "families": {name: _family(families.get(name)) for name in families},
        "tasks": {name: _task(tasks.get(name)) for name in tasks},
        "combinations": _combinations(),
        "methods": {name: _method(methods.get(name)) for name in methods},
        "metrics": _metrics(),
        "formats": {name: _format(formats.get(name)) for name in formats},
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
    return dict(sorted({**_costs(), **_utility(), **_chosen(), **_forgetting()}.items()))


def _forgetting() -> Entry:
    """Return what each metric function makes, found by calling it on one made-up pair."""
    one = Observed(scores=np.array([0.5]), outputs=np.array([[0.5, 0.5]]))
    nothing = Evidence("forget", deleted=one, retained=one, validation=one, unseen=one, seed=0)
    found = {}
    for name in metrics:
        function = metrics.get(name)
        summary = _summary(sys.modules[function.__module__])
        for metric in function(nothing, nothing, "after"):
            found[metric.name] = _metric(metric, "forgetting", SUMMARIES.get(metric.name, summary))
    return found


def _utility() -> Entry:
    """Return what each task measures, found by letting it measure no pairs: it asks no model then."""
    nobody, no_pairs = cast("PairModel", None), cast("Inputs", None)
    made: dict[str, tuple[Metric, list[str]]] = {}
    for name in tasks:
        for metric in tasks.get(name)().utility(
            nobody, no_pairs, torch.zeros(0, dtype=torch.int64)
        ):
            made.setdefault(metric.name, (metric, []))[1].append(name)
    return {
        name: _metric(metric, "utility", _described(name, of), of)
        for name, (metric, of) in made.items()
    }


def _described(name: str, of: Sequence[str]) -> str:
    """Return the summary of a metric of the tasks ``of``; another distribution's is told by its task."""
    return SUMMARIES.get(name) or f"On held-out pairs, of the task: {_summary(tasks.get(of[0]))}"


def _chosen() -> Entry:
    """Return what methods say of the epoch that they kept, whatever the task."""
    metric = excess_metric(0, 0, 0, 0)
    return {metric.name: _metric(metric, "utility", SUMMARIES[metric.name], list(tasks))}


def _costs() -> Entry:
    nothing = Cost(
        seconds=0,
        method_seconds=0,
        peak_memory_bytes=0,
        trained_parameters=0,
        samples_seen=0,
        steps=0,
    )
    return {
        metric.name: _metric(metric, "cost", SUMMARIES[metric.name])
        for metric in cost_metrics(nothing, 0)
    }


def _metric(metric: Metric, kind: Kind, summary: str, of: Sequence[str] = ()) -> Entry:
    return {
        "summary": summary,
        "kind": kind,
        "direction": metric.direction,
        "unit": metric.unit,
        "tasks": list(of),
    }


def _format(form: Format) -> Entry:
    return {"summary": summary_of(form), "images_apart": isinstance(form, ImageFormat)}


def _summary(component: object) -> str:
    return (inspect.getdoc(component) or "").partition("\n")[0]


def _schema(model: type[BaseModel]) -> Entry:
    return model.model_json_schema()


if __name__ == "__main__":
    with own_output() as lines:  # a component that prints while it is loaded stays out of it
        lines.write(render())
