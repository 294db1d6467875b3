"""What the engine can do, as data: families, tasks, methods and metrics with their schemas.

``catalogue.json`` beside this file is generated from the engine, so that the service can check a
request without importing it.
"""

from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from app.core.field_errors import MOST_POINTERS
from app.core.pointers import pointer_to
from app.registry.errors import ParametersInvalid, UnknownComponent
from app.registry.pretrained import misplaced
from app.registry.rules import faults
from app.registry.schema_faults import schema_faults

C = TypeVar("C")


class Component(BaseModel):
    """Base of the entries; members that the service does not need are passed on."""

    model_config = ConfigDict(frozen=True, extra="allow")


class Family(Component):
    """An architecture."""

    modality: str
    set_by_data: dict[str, str] = Field(
        description="Fields of the configuration that the data decide, and by which fact: a field "
        "that is given must say the same."
    )
    config_schema: dict[str, Any]
    tiny_config: dict[str, Any] = Field(description="A small one for trying things out.")


class Task(Component):
    """What a model is trained for."""

    modalities: list[str]
    items_per_pair: int = Field(description="Images or graphs of each pair.")
    least_items: int = Field(description="Distinct images or graphs that there must be.")
    labelled: bool = Field(description="Whether every pair needs a label.")
    classes: list[str] = Field(description="In the order of their numbers; empty: any, from 2 on.")
    recipe_schema: dict[str, Any]


class Applies(Component):
    """Whether a method can be used there: without a reason it can."""

    family: str
    task: str
    update: str
    reason: str | None


class Method(Component):
    """An unlearning algorithm: its class of guarantee, the scopes that it meets, its limits."""

    summary: str
    guarantee: str
    scopes: list[str]
    objectives: list[str] = Field(description="Where it can take deleted pairs.")
    params_schema: dict[str, Any]
    limitations: list[str]
    applies: list[Applies]


class Metric(Component):
    """A quantity that audits measure, and which way is better."""

    summary: str
    kind: str = Field(description="`forgetting`, `utility` on held-out pairs, or `cost`.")
    direction: str
    unit: str
    tasks: list[str] = Field(description="Those that measure this utility; empty for other kinds.")


class Format(Component):
    """A layout of data sets that `lethe convert` turns into a manifest; see its --help."""

    summary: str
    images_apart: bool = Field(description="Whether images may lie elsewhere than the rows.")


class Combination(Component):
    """A task that a family can be trained for."""

    family: str
    task: str


class Catalogue(BaseModel):
    """Everything that a request can name."""

    model_config = ConfigDict(frozen=True, extra="allow")

    families: dict[str, Family]
    tasks: dict[str, Task]
    methods: dict[str, Method]
    metrics: dict[str, Metric]
    formats: dict[str, Format]
    combinations: list[Combination]

    def check_model(self, family: str, task: str) -> None:
        """Raise `UnknownComponent` unless a model of this family and task can be trained."""
        self.family(family)
        self.task(task)
        tasks = sorted(pair.task for pair in self.combinations if pair.family == family)
        if task not in tasks:
            raise UnknownComponent(
                f"The family {family} cannot be trained for {task}; it can for {', '.join(tasks)}.",
                pointers=[{"pointer": "#/task", "detail": f"not a task of {family}"}],
            )

    def check_config(
        self,
        family: str,
        config: dict[str, Any],
        pointer: str = "#/config",
        installed: Sequence[str] = (),
    ) -> None:
        """Raise `ParametersInvalid` unless ``config`` is a configuration of ``family``.

        Args:
            family: an architecture.
            config: what a caller gave.
            pointer: where.
            installed: folders of pretrained models that it may name, beside the words for encoders.
        """
        schema = self.family(family).config_schema
        check(schema, config, pointer)
        places = list(misplaced(schema, config, pointer, installed))
        if places:
            raise ParametersInvalid(
                "A configuration may name the pretrained models that are installed, and no path or "
                "hub.",
                pointers=places,
            )

    def check_training(
        self, task: str, training: dict[str, Any], pointer: str = "#/training"
    ) -> None:
        """Raise `ParametersInvalid` unless ``training`` is a recipe of ``task``."""
        check(self.task(task).recipe_schema, training, pointer)
        # What no schema of single values says; the engine refuses it, too, but in a job.
        if training.get("keep") == "last" and training.get("patience") is not None:
            raise ParametersInvalid(
                "A recipe that keeps the last epoch compares no validation scores, which patience "
                'waits for. Leave patience out, or set keep to "best".',
                pointers=[{"pointer": f"{pointer}/patience", "detail": "not with keep: last"}],
            )

    def check_params(self, method: str, params: dict[str, Any]) -> None:
        """Raise `ParametersInvalid` unless ``params`` are parameters of ``method``."""
        check(self.method(method).params_schema, params, "#/params")

    def family(self, name: str) -> Family:
        """Return the family; raises `UnknownComponent` that lists the known ones."""
        return self._named("family", self.families, name)

    def task(self, name: str) -> Task:
        """Return the task; raises `UnknownComponent` that lists the known ones."""
        return self._named("task", self.tasks, name)

    def method(self, name: str) -> Method:
        """Return the method; raises `UnknownComponent` that lists the known ones."""
        return self._named("method", self.methods, name)

    def refusal(self, method: str, family: str, task: str, update: str) -> str | None:
        """Return why the method cannot be used there, or None where it can."""
        for cell in self.method(method).applies:
            if (cell.family, cell.task, cell.update) == (family, task, update):
                return cell.reason
        return f"{family} and {task} with update {update} are not in the catalogue"

    @staticmethod
    def _named(kind: str, known: dict[str, C], name: str) -> C:
        if name not in known:
            raise UnknownComponent(
                f"There is no {kind} {name!r}; known are {', '.join(sorted(known))}.",
                pointers=[{"pointer": f"#/{kind}", "detail": "unknown"}],
            )
        return known[name]


def check(schema: dict[str, Any], value: dict[str, Any], pointer: str) -> None:
    """Raise `ParametersInvalid` with a pointer to each fault, or accept ``value``."""
    # Rules between members are for values that follow the schema in all else.
    found = schema_faults(schema, value) or list(faults(schema, value))
    if not found:
        return
    pointers = [
        {"pointer": pointer_to(fault.path, pointer), "detail": fault.message}
        for fault in found[:MOST_POINTERS]
    ]
    first = pointers[0]
    raise ParametersInvalid(
        f"{len(found)} value{'s' if len(found) != 1 else ''} under {pointer} cannot be accepted, "
        f"the first one at {first['pointer']}: {first['detail']}. GET /v1/catalogue has the schema.",
        pointers=pointers,
    )


@lru_cache
def catalogue() -> Catalogue:
    """Return the catalogue that this service was built with."""
    return Catalogue.model_validate_json(
        files("app.registry").joinpath("catalogue.json").read_bytes()
    )
