"""Which runs the tables and plots need: cells, and the runs behind them, each found by a digest.

A cell that no method can fill is in the plan with the reason (the paper's N/A). Cells that need the
same run share it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from benchmarks.figures import BenchmarkError
from benchmarks.paper.alternatives import ALTERNATIVES, CHANGED, Alternative, register
from benchmarks.paper.data import Amount, BenchData, joined, requests
from benchmarks.paper.presets import Preset, Setting, Values
from benchmarks.paper.variants import (
    ABLATIONS,
    FULL,
    MAPPINGS,
    STUDIED,
    YARDSTICK,
    Variant,
    variants,
)
from benchmarks.runs import digest
from engine import RunSpec
from engine.families import families
from engine.methods import methods
from engine.methods.multidelete_defaults import defaults
from engine.tasks import tasks

Part = Literal["main", "ablation", "mappings", "sizes", "tradeoff", "sequence"]
Pairs = Mapping[str, Sequence[str]]

STEPS = 5
"""Sizes of D_f whose time is measured, evenly up to the last amount (paper, figure 2).

A method takes a least number of steps, which hides growth where few pairs are deleted.
"""
TARGET = "target"
"""Begins the row of a D_f that is asked for."""
TARGETS = (5.0, 10.0, 20.0, 30.0, 40.0, 50.0)
"""Values of D_f that are asked for, from the paper's aim to none."""
FEW = 3
"""Seeds of every part but the main one at most: they have many rows."""
SEEDS = 2**31
"""What every seed is below."""
FINAL = "after the last"
AT_ONCE = "at once"
PRETRAINED = "pretrained"
"""Key of a configuration that names the model to start from; the id of its run stands there."""


@dataclass(frozen=True)
class Job:
    """One run of the engine.

    Attributes:
        run_id: see `benchmarks.runs.digest`.
        spec: without the place of a checkpoint.
        parent: the run whose checkpoint it starts from.
        start: the run whose model a training starts from.
        preset: the data set.
    """

    run_id: str
    spec: RunSpec
    parent: "Job | None" = None
    start: "Job | None" = None
    preset: str = ""

    @property
    def needs(self) -> "list[Job]":
        """Runs whose checkpoint must be there first."""
        return [job for job in (self.parent, self.start) if job is not None]


@dataclass(frozen=True)
class Cell:
    """One cell of a table, or one point of a plot; ``reason`` says why it has no run."""

    part: Part
    preset: str
    family: str
    amount: str
    row: str
    seed: int
    job: Job | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Options:
    """What is asked of the benchmark.

    Attributes:
        known: every preset, by name.
        presets: names of those that are run, in the order of the columns.
        families: those of each preset's settings that are run; none: each preset's first.
        rows: methods, an ``-F`` behind the name for ``update=fusion``; none: all.
        amounts: how much is deleted. The parts ``main`` and ``ablation`` take each, ``tradeoff`` and
            ``mappings`` take the first, ``sizes`` goes up to the last, and ``sequence`` cuts the last into requests:
            of the first, a request can be too few pairs for a D_f that resolves points.
        seeds: how many; each has its own original and its own draw of deleted pairs. Parts other than
            ``main`` take three at most.
        first_seed: the first of them. Settings are tried on other originals than those that tables report.
        references: models trained for the attack on each pair, in the part ``main``; 0: no attack.
        settings: parameters by method, in place of its defaults and of a preset's; a row that changes one keeps it.

    Raises:
        BenchmarkError: a row is unknown, or a family that no data set here is trained as, or a data set is
            trained as none of the families; settings are of a method that is not run; a seed is too high.
    """

    known: Mapping[str, Preset]
    presets: Sequence[str]
    amounts: Sequence[Amount]
    seeds: int = 1
    first_seed: int = 0
    families: Sequence[str] = ()
    rows: Sequence[str] = ()
    parts: Sequence[Part] = get_args(Part)
    device: str = "cpu"
    threads: int = 1
    references: int = 0
    settings: Mapping[str, Values] = field(default_factory=dict)

    def __post_init__(self) -> None:
        run = {variant.method for variant in variants(self.rows)}
        idle = [method for method in self.settings if method not in run]
        if idle:
            raise BenchmarkError(
                f"--set is of {', '.join(idle)}, which --methods does not run; it runs {', '.join(sorted(run))}"
            )
        if self.first_seed + self.seeds > SEEDS:
            raise BenchmarkError(
                f"seeds below {SEEDS} were expected, and {self.seeds} from {self.first_seed} on came"
            )
        own = {name: list(self.known[name].settings) for name in self.presets}
        unused = [f for f in self.families if not any(f in names for names in own.values())]
        lacking = [n for n, names in own.items() if set(names).isdisjoint(self.families)]
        there = "; ".join(f"{name} has {', '.join(names)}" for name, names in own.items())
        if unused:
            raise BenchmarkError(
                f"--families names {', '.join(unused)}, for which no chosen data set has settings: {there}"
            )
        if self.families and lacking:
            raise BenchmarkError(
                f"--families names none that {', '.join(lacking)} has settings for: {there}; name one of "
                "each data set, or choose data sets with --tasks"
            )

    def seed_range(self, most: int | None = None) -> range:
        """Return the seeds, ``most`` of them at most."""
        count = self.seeds if most is None else min(self.seeds, most)
        return range(self.first_seed, self.first_seed + count)

    def chosen(self, name: str) -> list[str]:
        """Return the families that are run on a preset."""
        settings = self.known[name].settings
        if not self.families:
            return list(settings)[:1]
        return [family for family in self.families if family in settings]

    def sources(self) -> list[str]:
        """Return the presets whose data are needed: also those that trainings start from."""
        found = dict.fromkeys(self.presets)
        for name in self.presets:
            for family in self.chosen(name):
                start = self.known[name].settings[family].start
                found |= {} if start is None else {start: None}
        return list(found)


def make_plan(options: Options, data: Mapping[str, BenchData]) -> list[Cell]:
    """Return every cell that ``options`` ask for; ``data`` by preset."""
    found: list[Cell] = []
    for name in options.presets:
        for family in options.chosen(name):
            column = _Column(options, name, family, data)
            for part in options.parts:
                found.extend(column.part(part))
    return found


def jobs(cells: Sequence[Cell]) -> list[Job]:
    """Return the runs behind cells, each once, and each after those that it needs."""
    found: dict[str, Job] = {}

    def add(job: Job) -> None:
        for needed in job.needs:
            add(needed)
        found.setdefault(job.run_id, job)

    for cell in cells:
        if cell.job is not None:
            add(cell.job)
    return list(found.values())


class _Column:
    """The cells of one data set and family."""

    def __init__(
        self, options: Options, name: str, family: str, data: Mapping[str, BenchData]
    ) -> None:
        self.options, self.name, self.family = options, name, family
        self.preset = options.known[name]
        self.setting = self._setting(name)
        self.all_data, self.data = data, data[name]
        self.first, self.last = options.amounts[0], options.amounts[-1]
        self.rows = variants(options.rows)
        self.names = {variant.row for variant in self.rows}

    def part(self, part: Part) -> Iterator[Cell]:
        """Yield the cells of one part."""
        makers = {
            "main": self._main,
            "ablation": self._ablation,
            "mappings": self._mappings,
            "sizes": self._sizes,
            "tradeoff": self._tradeoff,
            "sequence": self._sequence,
        }
        if part in ("main", "mappings") or STUDIED in self.names:
            yield from makers[part]()

    def _main(self) -> Iterator[Cell]:
        for amount in self.options.amounts:
            for variant in self.rows:
                for seed in self.options.seed_range():
                    yield self._cell("main", amount, variant, seed)

    def _ablation(self) -> Iterator[Cell]:
        rows = [
            Variant(row, STUDIED, params=params)
            for row, params in ABLATIONS.items()
            if row == FULL or not self._has(params)
        ]
        if YARDSTICK in self.names:
            rows.insert(0, Variant(YARDSTICK, YARDSTICK))
        for amount in self.options.amounts:
            for variant in rows:
                for seed in self.options.seed_range(FEW):
                    yield self._cell("ablation", amount, variant, seed)

    def _mappings(self) -> Iterator[Cell]:
        """What was chosen where the paper leaves it open, beside what was not."""
        for variant in MAPPINGS:
            if {variant.method, f"{variant.method}-F"}.isdisjoint(self.names):
                continue
            if variant.params and variant.method == STUDIED and self._has(variant.params):
                continue
            for seed in self.options.seed_range(FEW):
                yield self._cell("mappings", self.first, variant, seed)
        if not {STUDIED, f"{STUDIED}-F"}.isdisjoint(self.names):
            ranks = self.preset.task in tasks and tasks.get(self.preset.task).contrastive
            for other in ALTERNATIVES.get(self.family, ()):
                if ranks or other.update == "all":
                    yield from self._other(other)

    def _other(self, other: Alternative) -> Iterator[Cell]:
        """The studied method on a family that makes one choice differently."""
        register()
        row = STUDIED if other.update == "all" else f"{STUDIED}-F"
        column = _Column(self.options, self.name, other.kind.family, self.all_data)
        variant = Variant(f"{row}, {other.words}", STUDIED, other.update)
        for seed in self.options.seed_range(FEW):
            cell = column._cell("mappings", self.first, variant, seed)
            yield replace(cell, family=self.family)

    def _setting(self, name: str) -> Setting:
        """Return how this family, or the one that it changes, is trained on a data set."""
        return self.options.known[name].settings[CHANGED.get(self.family, self.family)]

    def _has(self, params: Mapping[str, Any]) -> bool:
        """Return whether one of these is what the studied method does here anyway: the row would be another's."""
        if self.preset.task not in tasks or self.family not in families:
            return False
        kind = tasks.get(self.preset.task)
        own = defaults(kind, families.get(self.family).modality, "all")
        given = {**asdict(own), **self._given(STUDIED)}
        idle = {} if kind.labelled else {"balanced": False}
        return any({**given, **idle}.get(name, object()) == v for name, v in params.items())

    def _given(self, method: str) -> Values:
        """Return what the data set and the call set of a method."""
        return {**self.setting.params.get(method, {}), **self.options.settings.get(method, {})}

    def _sizes(self) -> Iterator[Cell]:
        most = self.last.of(self.data.training)
        rows = [Variant(name, name) for name in (STUDIED, YARDSTICK) if name in self.names]
        for step in range(1, STEPS + 1):
            pairs = max(1, round(step * most / STEPS))
            for variant in rows:
                for seed in self.options.seed_range(FEW):
                    yield self._cell("sizes", Amount(str(pairs), pairs=pairs), variant, seed)

    def _tradeoff(self) -> Iterator[Cell]:
        rows = [Variant(f"{TARGET} {t:g}", STUDIED, params={"target": t}) for t in TARGETS]
        rows.append(Variant("calibrated", STUDIED, objective="calibrated"))
        for variant in rows:
            for seed in self.options.seed_range(FEW):
                yield self._cell("tradeoff", self.first, variant, seed)

    def _sequence(self) -> Iterator[Cell]:
        for seed in self.options.seed_range(FEW):
            yield from self._chain(seed)

    def _chain(self, seed: int) -> Iterator[Cell]:
        """Ten requests one after another on the same model, and all of them at once."""
        variant = Variant(STUDIED, STUDIED)
        reason = self._reason(variant)
        amount = self.last.text
        cell = Cell("sequence", self.name, self.family, amount, AT_ONCE, seed, reason=reason)
        if reason is not None:
            yield cell
            return
        asked = requests(self.data.draw(self.last.of(self.data.training), seed))
        original = self._original(seed)
        yield replace(cell, job=self._unlearn(variant, seed, asked, original))
        last = original
        for number, name in enumerate(asked):
            before = dict(list(asked.items())[:number])
            last = self._unlearn(variant, seed, {name: asked[name]}, last, before)
            yield replace(cell, row=name, job=last)
        yield replace(cell, row=FINAL, job=self._evaluate(asked, last, seed))

    def _cell(self, part: Part, amount: Amount, variant: Variant, seed: int) -> Cell:
        cell = Cell(part, self.name, self.family, amount.text, variant.row, seed)
        reason = self._reason(variant)
        if reason is not None:
            return replace(cell, reason=reason)
        groups = self.data.draw(amount.of(self.data.training), seed)
        job = self._unlearn(variant, seed, {"request": joined(groups)}, self._original(seed))
        if part == "main" and self.options.references:
            job = self._attacked(job)
        return replace(cell, job=job)

    def _attacked(self, job: Job) -> Job:
        """Return the same unlearning with an attack by reference models."""
        spec = job.spec.model_copy(update={"reference_models": self.options.references})
        parent = None if job.parent is None else job.parent.run_id
        return replace(job, run_id=digest(spec, self.data.digest, parent), spec=spec)

    def _reason(self, variant: Variant) -> str | None:
        """Return why the method cannot be used here, or None."""
        task = self.preset.task
        for kind, name, known in (("family", self.family, families), ("task", task, tasks)):
            if name not in known:
                return f"the engine has no {kind} {name}"
        impossible = tasks.get(task).refusal(families.get(self.family))
        method = methods.get(variant.method)
        return impossible or method.refusal(self.family, task, variant.update)

    def _unlearn(
        self,
        variant: Variant,
        seed: int,
        forget: Pairs,
        parent: Job,
        forgotten: Pairs | None = None,
    ) -> Job:
        spec = self._spec(self.name, seed).model_copy(
            update={
                "action": "unlearn",
                "method": variant.method,
                "params": {**self._given(variant.method), **variant.params},
                "update": variant.update,
                "objective": variant.objective,
                "forget": dict(forget),
                "forgotten": dict(forgotten or {}),
            }
        )
        run_id = digest(spec, self.data.digest, parent.run_id)
        return Job(run_id, spec, parent, preset=self.name)

    def _evaluate(self, asked: Pairs, parent: Job, seed: int) -> Job:
        """Measure the last model of the sequence on each request, as the others are measured."""
        update = {"action": "evaluate", "forget": dict(asked)}
        spec = self._spec(self.name, seed).model_copy(update=update)
        run_id = digest(spec, self.data.digest, parent.run_id)
        return Job(run_id, spec, parent, preset=self.name)

    def _original(self, seed: int, name: str | None = None) -> Job:
        """Return the training on this column's data set, or on the one that it starts from."""
        name = name or self.name
        setting = self._setting(name)
        config, start = dict(setting.config), None
        if setting.start is not None:
            start = self._original(0, setting.start)
            config[PRETRAINED] = start.run_id
        spec = self._spec(name, seed).model_copy(
            update={"config": config, "training": dict(setting.training)}
        )
        run_id = digest(spec, self.all_data[name].digest)
        return Job(run_id, spec, start=start, preset=name)

    def _spec(self, name: str, seed: int) -> RunSpec:
        return RunSpec(
            action="train",
            data=self.all_data[name].spec,
            family=self.family,
            task=self.options.known[name].task,
            seed=seed,
            threads=self.options.threads,
            device=self.options.device,
        )
