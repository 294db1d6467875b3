"""The one path of a run: load, divide, train or unlearn, evaluate, save."""

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from engine.audit import Auditor, cost_metrics
from engine.checkpoints import CheckpointDigest, LoadedCheckpoint, load_checkpoint, save_checkpoint
from engine.data.lines import reason_of
from engine.data.manifest import load_dataset
from engine.data.pairs import PairDataset
from engine.division import divide, without_deleted
from engine.environment import environment, peak_memory_bytes, precision_on, require_device
from engine.errors import InvalidSpec, NotApplicable
from engine.families import PairModel, families, pretrained
from engine.inputs import Inputs
from engine.levels import history, levels, measured
from engine.methods import Method, MethodParams, methods
from engine.monitor import Control, Monitor
from engine.processes import Together, count, is_main
from engine.references import Procedure, with_references
from engine.spec import Cost, Metric, Progress, RunResult, RunSpec
from engine.tasks import Task, TrainingRecipe, tasks
from engine.training import FitReport, TaskObjective, deterministic, fit, recipe_schedule
from engine.unlearning import Unlearning

CHECKPOINT = "checkpoint"
RESULT = "result.json"
STARTED_FROM = "started_from"
"""In a checkpoint's card: the digests of the pretrained models that its training started from."""

ModelT = TypeVar("ModelT", bound=BaseModel)


def run(
    spec: RunSpec,
    out: Path,
    *,
    state: Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    control: Control | None = None,
    save_every: float = 30.0,
) -> RunResult:
    """Do what ``spec`` says and write ``out/checkpoint`` and ``out/result.json``, or nothing.

    The same specification, data, seed and hardware give the same weights to the bit on a CPU, with
    the same number of processes (`engine.processes`). Of several the main one alone writes; the
    results of the others name no checkpoint.

    Args:
        spec: what to do.
        out: folder for the results; made when missing.
        state: folder for saved training state. A run that is repeated with the same folder goes
            on where the last one was; remove the folder when the run is done.
        on_progress: receives progress events.
        control: asked often whether to go on; its `check` raises `Cancelled`.
        save_every: least seconds between two saves of the state.

    Raises:
        InvalidSpec: the specification contradicts itself or the data, its precision is not to be
            had here, or ``out`` has a result.
        DeviceUnavailable: its device is not to be had here.
        NotApplicable: the method or task cannot be used here; the message says why.
        DataError: a row, image or graph is broken; the message names it.
        NonFiniteLoss: training diverged.
        StorageFull: the disk is full; what was written is removed.
        CheckpointError: the checkpoint cannot be read or written.
        Cancelled: the caller stopped the run.
    """
    started = time.monotonic()
    # What cannot be had is refused before anything is read or made.
    require_device(spec.device)
    precision_on(spec.device, spec.precision)
    if is_main():
        _clear(out, state)
    else:
        on_progress = None
    if count() > 1:
        control = Together(control)
    monitor = Monitor(on_progress, control, state, save_every=save_every)
    with deterministic(spec.threads, spec.precision), pretrained.below(spec.pretrained_root):
        return _Run(spec, out, monitor, started).execute()


@dataclass
class _Made:
    """What the action gave: a model to save (or None), what is said of it, and what it took."""

    model: PairModel
    card: dict[str, Any] | None
    metrics: list[Metric]
    reports: list[FitReport] = field(default_factory=list)
    seconds: float = 0.0
    pairs: int = 0


class _Run:
    """One call of `run`."""

    def __init__(self, spec: RunSpec, out: Path, monitor: Monitor, started: float) -> None:
        self.spec = spec
        self.out = out
        self.monitor = monitor
        self.started = started
        self.family = families.get(spec.family)
        self.task = self._task()
        self._phase("load")
        self.dataset = load_dataset(spec.data)
        self.task.check(self.dataset)
        self.division = divide(self.dataset, spec)
        self.auditor = Auditor(self.task, self.division, spec.seed, monitor)

    def execute(self) -> RunResult:
        action = {"train": self._train, "unlearn": self._unlearn, "evaluate": self._evaluate}
        made = action[self.spec.action]()
        digest = None
        if made.card is not None:
            self._phase("save")
        if made.card is not None and is_main():
            digest = save_checkpoint(made.model, self.out / CHECKPOINT, made.card)
        result = self._result(made, digest)
        if is_main():
            _write(self.out / RESULT, result.model_dump_json(indent=2))
        return result

    def _task(self) -> Task:
        kind = tasks.get(self.spec.task)
        reason = kind.refusal(self.family)
        if reason is not None:
            raise NotApplicable(reason)
        return kind()

    def _train(self) -> _Made:
        spec = self.spec
        recipe = _validated(self.task.recipe, spec.training, "training")
        self.task.configure(recipe)
        config = _validated(self.family.config_class, spec.config, "config")
        self._phase("prepare")
        self.monitor.fingerprint = self._fingerprint(None)
        known = without_deleted(self.dataset, self.division)
        starts = pretrained.started_from(config)
        started = {STARTED_FROM: starts} if starts else {}
        model = self.family.build(config, known, spec.seed).to(spec.device)
        inputs = Inputs(model, self.dataset)
        inputs.open_items(model)
        model.set_trainable("all")
        objective = TaskObjective(
            self.task,
            model,
            inputs,
            self.division.retain,
            self.division.validation,
            recipe.batch_size,
        )
        began = time.monotonic()
        report = fit(
            model,
            objective,
            recipe_schedule(recipe),
            phase="train",
            seed=spec.seed,
            monitor=self.monitor,
        )
        seconds = time.monotonic() - began
        card = {
            "task": spec.task,
            "seed": spec.seed,
            "initial_config": config.model_dump(mode="json"),
            "training": recipe.model_dump(mode="json"),
            "pairs": len(self.division.retain),
            "unlearning": [],
            **started,
        }
        found = self._audit(model, inputs)
        return _Made(model, card, found, [report], seconds, len(self.division.retain))

    def _evaluate(self) -> _Made:
        loaded = self._load()
        self._phase("prepare")
        model = loaded.model.to(self.spec.device)
        inputs = Inputs(model, self.dataset)
        return _Made(model, None, self._audit(model, inputs), pairs=len(self.division.deleted))

    def _unlearn(self) -> _Made:
        method, params = self._method()
        loaded = self._load()
        self.monitor.fingerprint = self._fingerprint(loaded.digest.checkpoint_sha256)
        self._phase("prepare")
        teacher = loaded.model.to(self.spec.device).requires_grad_(False)  # noqa: FBT003
        inputs = Inputs(teacher, self.dataset)
        prepared = {teacher: inputs}
        context = self._context(loaded, teacher, params, prepared)
        with inputs.freeze(teacher):
            self._phase("evaluate_before")
            before = self.auditor.view(teacher, inputs, "before")
            self._phase("unlearn")
            began = time.monotonic()
            student = method.run(context)
            seconds = time.monotonic() - began
        self._phase("evaluate_after")
        after = self.auditor.view(student, prepared.get(student, inputs), "after")
        if self.spec.reference_models:
            procedure = self._procedure(loaded, context, method)
            own = prepared.get(student, inputs)
            before, after = with_references((before, after), procedure, student, own)
        found = self.auditor.metrics(before, None, "before")
        found += self.auditor.metrics(after, before, "after")
        found += context.measured
        card = self._unlearned_card(loaded, method, params, found)
        pairs = len(self.division.forget)
        return _Made(student, card, found, context.reports, seconds, pairs)

    def _method(self) -> tuple[Method, MethodParams]:
        spec = self.spec
        if spec.method is None:
            raise InvalidSpec(f"an unlearning needs a method; known are {', '.join(methods)}")
        method = methods.get(spec.method)
        reason = method.refusal(spec.family, spec.task, spec.update) or method.refuse_aim(
            spec.objective
        )
        if reason is not None:
            raise NotApplicable(reason)
        return method, _validated(method.params, spec.params, "params")

    def _load(self) -> LoadedCheckpoint:
        spec = self.spec
        if spec.checkpoint is None:
            raise InvalidSpec(f"the action {spec.action} needs a checkpoint")
        loaded = load_checkpoint(spec.checkpoint)
        found = loaded.model.family, loaded.card.get("task", spec.task)
        if found != (spec.family, spec.task):
            raise InvalidSpec(
                f"the run is for {spec.family} and {spec.task}, and the checkpoint is "
                f"{found[0]} trained for {found[1]}; name these instead"
            )
        recipe = self._recipe(loaded.card)  # weights from elsewhere have none
        self.task.configure(recipe or _validated(self.task.recipe, spec.training, "training"))
        return loaded

    def _context(
        self,
        loaded: LoadedCheckpoint,
        teacher: PairModel,
        params: MethodParams,
        prepared: dict[PairModel, Inputs],
    ) -> Unlearning:
        def fresh() -> tuple[PairModel, Inputs]:
            known = without_deleted(self.dataset, self.division)
            seed = int(loaded.card.get("seed", self.spec.seed))
            model = self._initial(loaded, known, seed)
            prepared[model] = Inputs(model, self.dataset)
            return model, prepared[model]

        return Unlearning(
            teacher=teacher,
            task=self.task,
            inputs=prepared[teacher],
            forget=self.division.forget,
            retain=self.division.retain,
            forgotten=self.division.forgotten,
            forgotten_by=self.division.forgotten_by,
            forgotten_d_f=levels(loaded.card, self.spec, self.division),
            validation=self.division.validation,
            params=params,
            update=self.spec.update,
            aim=self.spec.objective,
            recipe=self._recipe(loaded.card),
            seed=self.spec.seed,
            monitor=self.monitor,
            fresh=fresh,
        )

    def _procedure(
        self, loaded: LoadedCheckpoint, context: Unlearning, method: Method
    ) -> Procedure:
        return Procedure(
            context=context,
            method=method,
            dataset=self.dataset,
            build=lambda known, seed: self._initial(loaded, known, seed),
            test=self.division.test,
            count=self.spec.reference_models,
        )

    def _initial(self, loaded: LoadedCheckpoint, known: PairDataset, seed: int) -> PairModel:
        """Make the model that the original was before its training, as if it only knew ``known``."""
        given = loaded.card.get("initial_config", loaded.card.get("config", {}))
        config = _validated(self.family.config_class, given, "the checkpoint's config")
        pretrained.verify_start(config, loaded.card.get(STARTED_FROM, []))
        return self.family.build(config, known, seed).to(self.spec.device)

    def _recipe(self, card: dict[str, Any]) -> TrainingRecipe | None:
        given = card.get("training")
        if given is None:
            return None
        return _validated(self.task.recipe, given, "the checkpoint's training recipe")

    def _unlearned_card(
        self,
        loaded: LoadedCheckpoint,
        method: Method,
        params: MethodParams,
        found: Sequence[Metric],
    ) -> dict[str, Any]:
        # Pairs are counted, never named: a checkpoint is handed on, and ids may be personal data.
        entry = {
            "method": method.name,
            "params": params.model_dump(mode="json"),
            "update": self.spec.update,
            "objective": self.spec.objective,
            "seed": self.spec.seed,
            "pairs": len(self.division.forget),
            "d_f": measured(found, self.division, loaded.digest.checkpoint_sha256),
            "parent_sha256": loaded.digest.checkpoint_sha256,
        }
        steps = [*history(loaded.card), entry]
        return {**loaded.card, "task": self.spec.task, "unlearning": steps}

    def _audit(self, model: PairModel, inputs: Inputs) -> list[Metric]:
        self._phase("evaluate_after")
        view = self.auditor.view(model, inputs, "after")
        return self.auditor.metrics(view, None, "after")

    def _result(self, made: _Made, digest: CheckpointDigest | None) -> RunResult:
        spec = self.spec
        earlier = sum(report.earlier_seconds for report in made.reports)
        cost = Cost(
            seconds=time.monotonic() - self.started + earlier,
            method_seconds=made.seconds + earlier,
            peak_memory_bytes=peak_memory_bytes(spec.device),
            trained_parameters=max((r.trained_parameters for r in made.reports), default=0),
            samples_seen=sum(r.samples for r in made.reports),
            steps=sum(r.steps for r in made.reports),
        )
        costs = cost_metrics(cost, made.pairs) if made.reports else []
        return RunResult(
            checkpoint=None if digest is None else self.out / CHECKPOINT,
            checkpoint_sha256=None if digest is None else digest.checkpoint_sha256,
            weights_sha256=None if digest is None else digest.weights_sha256,
            metrics=[*made.metrics, *costs],
            cost=cost,
            environment=environment(spec.device, spec.threads, spec.precision),
        )

    def _phase(self, name: str) -> None:
        self.monitor.check()
        self.monitor.report(name, 0, 1)

    def _fingerprint(self, parent: str | None) -> str:
        """Return what training state depends on; folders may differ between attempts."""
        described = self.spec.model_dump(
            mode="json", exclude={"data", "checkpoint", "pretrained_root"}
        )
        pairs = hashlib.sha256()
        for pair in self.dataset.pairs:
            pairs.update(repr(pair).encode())
        text = json.dumps([described, count(), parent, pairs.hexdigest()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def _validated(kind: type[ModelT], given: dict[str, Any], what: str) -> ModelT:
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        reason = reason_of(error, kind)
        raise InvalidSpec(f"{what} does not fit {kind.__name__}: {reason}") from error


def _clear(out: Path, state: Path | None) -> None:
    """Make room for a result: refuse to replace one, and drop what an interrupted attempt left."""
    if (out / RESULT).exists():
        raise InvalidSpec(f"{out} holds the result of a run already; choose an empty folder")
    out.mkdir(parents=True, exist_ok=True)
    left = out / CHECKPOINT
    if left.is_dir() and state is not None:
        shutil.rmtree(left)  # its run ended between the checkpoint and the result


def _write(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


class _RunModule(ModuleType):
    """Once imported, this module hides the function `engine.run`: so it can be called like it."""

    def __call__(self, spec: RunSpec, out: Path, **options: Any) -> RunResult:
        return run(spec, out, **options)


sys.modules[__name__].__class__ = _RunModule
