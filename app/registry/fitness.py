"""Whether a dataset is what a model's family and task need, as far as its manifest has told.

The engine refuses the same by the same facts, which it declares and the catalogue carries
(`engine.tasks.base.Task`, `engine.families.base.PairModel`): but in a job, and here at once.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from app.datasets.tables import Dataset
from app.registry.catalogue import Task, catalogue
from app.registry.errors import DatasetUnfit
from app.registry.tables import Model

# No task tells fewer apart, and a model that ranks says "match or not".
_LEAST_CLASSES = 2


def check_fit(
    model: Model, dataset: Dataset, config: Mapping[str, Any], pointer: str = "#/config"
) -> None:
    """Make sure that the task has what it needs in ``dataset``, and that ``config`` agrees with it.

    Args:
        model: its family and task.
        dataset: a ready one. What was not kept of an old manifest is left to the engine.
        config: a configuration that follows the family's schema.
        pointer: where the caller wrote it.

    Raises:
        DatasetUnfit: with a pointer to what is at fault: the dataset, or a field of ``config``.
    """
    faults = [
        {"pointer": "#/dataset_id", "detail": reason}
        for reason in _task_faults(catalogue().task(model.task), dataset)
    ]
    fields = catalogue().family(model.family).set_by_data
    faults += [
        {"pointer": f"{pointer}/{name}", "detail": reason}
        for name, fact in fields.items()
        for reason in _field_faults(config.get(name), fact, dataset)
    ]
    if faults:
        reasons = "; ".join(fault["detail"] for fault in faults)
        raise DatasetUnfit(
            f"Dataset {dataset.dataset_id} and the model do not fit: {reasons}.", pointers=faults
        )


def check_patience(dataset: Dataset, training: Mapping[str, Any]) -> None:
    """Make sure that a training that is to stop by its validation score has pairs to validate on.

    The engine would train every epoch and keep the last one, as though nobody had asked.

    Args:
        dataset: a ready one.
        training: a recipe that follows the task's schema.

    Raises:
        DatasetUnfit: there is no validation pair.
    """
    patience = training.get("patience")
    if patience is not None and not dataset.split_counts.get("val", 0):
        raise DatasetUnfit(
            f"The recipe ends the training after {patience} epochs without a better validation score,"
            f" and dataset {dataset.dataset_id} has no pair with the split 'val'. Leave patience out,"
            " or register a dataset whose manifest has such pairs.",
            pointers=[{"pointer": "#/training/patience", "detail": "the dataset has no val split"}],
        )


def _task_faults(task: Task, dataset: Dataset) -> Iterator[str]:
    kind = dataset.modality
    if dataset.items_per_pair not in (None, task.items_per_pair):
        yield (
            f"the task needs {_counted(task.items_per_pair, kind)} a pair, and pairs of the dataset "
            f"have {dataset.items_per_pair}"
        )
    if dataset.item_count is not None and dataset.item_count < task.least_items:
        yield (
            f"the task needs {_counted(task.least_items, 'distinct ' + kind)} at least, and the "
            f"dataset has {dataset.item_count}"
        )
    if task.labelled and dataset.label_classes is not None:
        yield from _label_faults(task.classes, dataset.label_classes)


def _label_faults(names: list[str], found: int) -> Iterator[str]:
    wanted = f"labels 0 to {len(names) - 1} ({', '.join(names)})" if names else "labels from 0 on"
    if found == 0:
        yield f"the task needs {wanted}, and the dataset has no labels"
    elif names and found != len(names):
        yield f"the task needs {wanted}, and the highest label of the dataset is {found - 1}"
    elif found < _LEAST_CLASSES:
        yield f"the task needs {_LEAST_CLASSES} classes at least, and every label is {found - 1}"


def _field_faults(given: Any, fact: str, dataset: Dataset) -> Iterator[str]:
    needed, found = _facts(dataset).get(fact, (None, ""))
    if None not in (given, needed) and given != needed:
        yield f"it says {given}, and {found}: leave it out, or say {needed}"


def _facts(dataset: Dataset) -> dict[str, tuple[int | None, str]]:
    """Return the facts of the dataset by the engine's names: what it is, and in words."""
    count, classes = dataset.items_per_pair, dataset.label_classes
    labels = f"labels for {_counted(classes, 'class', 'classes')}" if classes else "no labels"
    return {
        "items_per_pair": (count, f"pairs of the dataset have {_counted(count, dataset.modality)}"),
        "classes": (
            None if classes is None else max(classes, _LEAST_CLASSES),
            f"the dataset has {labels}",
        ),
    }


def _counted(count: int | None, kind: str, plural: str | None = None) -> str:
    return f"{count} {kind if count == 1 else plural or kind + 's'}"
