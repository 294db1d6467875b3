"""Runs of the engine: each in a process of its own, found again by a digest of what it depends on."""

import ast
import hashlib
import inspect
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cache, partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import engine
from benchmarks.figures import BenchmarkError
from engine import Progress, RunResult, RunSpec
from engine.data import convert
from engine.data.files import SEPARATOR
from engine.data.formats import formats
from engine.data.items import node_texts_of
from engine.families import families
from engine.families.pretrained import FIELD, MINILM, resolve, start_digest
from engine.families.sentences import CACHE_VARIABLE, PAIRS_VARIABLE
from engine.methods import methods
from engine.metrics import metrics
from engine.tasks import tasks

ROOT = Path(__file__).parents[1]
RESULT, CHECKPOINT, SPEC, STATE, LOG = "result.json", "checkpoint", "spec.json", "state", "log.txt"
_LIBRARIES = ("torch", "torch-geometric", "transformers", "tokenizers", "numpy", "scikit-learn")
DEFAULTS = "_defaults"
"""Ends the name of the module with the values that stand in for nulls of a method's parameters."""
_NO_RUN_USES = ("__main__.py", "catalogue.py", "output.py")

OnProgress = Callable[[Progress], None]
OnStart = Callable[[subprocess.Popen[str]], None]


class RunFailed(BenchmarkError):
    """The engine ended a run with an error; ``code`` is the engine's, or ``crashed``."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def digest(spec: RunSpec, data_digest: str, parent: str | None = None) -> str:
    """Return what a run is found by: 32 hex digits of all that its result depends on.

    Args:
        spec: the run; its places on disk do not count.
        data_digest: of the data, see `data_digest`.
        parent: the digest of the run whose checkpoint it starts from, if any.
    """
    described = placeless(spec).model_dump_json(exclude={"data", "checkpoint"})
    code = code_digest(spec.action, spec.family, spec.task, spec.method)
    facts = "\n".join([described, data_digest, str(parent), code, *_defaults(spec)])
    return hashlib.sha256(facts.encode()).hexdigest()[:32]


def placeless(spec: RunSpec) -> RunSpec:
    """Return the run with digests of pretrained models in place of their folders and of ``minilm``.

    What else is no whole path is the id of the run that makes the model.
    """
    digests = {
        name: _start_digest(given)
        for name, given in spec.config.items()
        if name.startswith(FIELD) and isinstance(given, str)
        if given == MINILM or Path(given).is_absolute()
    }
    return spec.model_copy(update={"config": {**spec.config, **digests}})


@cache  # a plan asks for every cell
def _start_digest(name: str) -> str:
    return start_digest(resolve(name))


@cache
def code_digest(action: str, family: str, task: str, method: str | None) -> str:
    """Return the SHA-256 of the engine's files that matter to a run, and of its libraries."""
    sources = Path(engine.__file__ or "").parent
    found = hashlib.sha256(" ".join(version(library) for library in _LIBRARIES).encode())
    for source in relevant_sources(action, family, task, method):
        # A method of another distribution lies elsewhere.
        name = source.relative_to(sources) if source.is_relative_to(sources) else source.name
        found.update(f"\n{name}\n{_without_words(source)}".encode())
    return found.hexdigest()


def _defaults(spec: RunSpec) -> Iterator[str]:
    """Yield what stands in for nulls of the method's parameters, where a file beside it says so.

    The values of this run's kind count, and not the file, which has those of other kinds as well.
    """
    if spec.method is not None:
        module = f"{methods.get(spec.method).run.__module__}{DEFAULTS}"
        if find_spec(module) is not None:
            modality = families.get(spec.family).modality
            values = import_module(module).defaults(tasks.get(spec.task), modality, spec.update)
            yield json.dumps(asdict(values), sort_keys=True)


def _without_words(source: Path) -> str:
    """Return what a file does: its syntax tree without docstrings; comments are in no tree."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):  # of a lambda or a conditional expression it is none
            node.body = [part for part in body if not _is_text(part)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_text(node: ast.AST) -> bool:
    """Return whether a statement is a text alone, as docstrings are."""
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def data_digest(manifest: Path, root: Path) -> str:
    """Return the SHA-256 of a manifest and of every file that a run reads for its references."""
    found = hashlib.sha256(manifest.read_bytes())
    for name in sorted(_referenced(manifest)):
        with (root / name).open("rb") as file:
            found.update(f"{name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return found.hexdigest()


def _referenced(manifest: Path) -> set[str]:
    with manifest.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    given = [row.get("image") or row["graph"] for row in rows]
    references = [name for one in given for name in ([one] if isinstance(one, str) else one)]
    files = {reference.partition(SEPARATOR)[0] for reference in references}
    graphs = {row["graph"].partition(SEPARATOR)[0] for row in rows if row.get("graph")}
    return files | {node_texts_of(name) for name in graphs}


def relevant_sources(action: str, family: str, task: str, method: str | None) -> list[Path]:
    """Return the engine's files that can change the result of a run.

    Other families, tasks and methods than the run's cannot, nor what only these import, nor can formats
    of data sets, since a run reads a manifest. A training runs no method and no metric of forgetting.
    """
    sources = Path(engine.__file__ or "").parent
    others = set(_others(family, task)) | {Path(inspect.getfile(convert))}
    skipped = {"train": ("methods", "metrics"), "evaluate": ("methods",), "unlearn": ("methods",)}
    folders = [sources / name for name in skipped[action]]
    found = {
        file
        for file in sources.rglob("*.py")
        if file not in others
        and file.name not in _NO_RUN_USES
        and not any(file.is_relative_to(folder) for folder in folders)
    }
    # Those of another distribution, or of a benchmark, lie elsewhere.
    used: list[Any] = [families.get(family), tasks.get(task)]
    if action != "train":
        used += [metrics.get(name) for name in metrics]
    for file in map(_file_of, used):
        if not file.is_relative_to(sources):
            found |= _with_imports(file)
    if action == "unlearn" and method is not None:
        found |= _with_imports(_file_of(methods.get(method).run))
    return sorted(found)


def _file_of(component: Any) -> Path:
    """Return the file of a class, a function, or an object that is called like one."""
    while isinstance(component, partial):
        component = component.func
    named = inspect.isclass(component) or inspect.isroutine(component)
    return Path(inspect.getfile(component if named else type(component)))


def _with_imports(source: Path) -> set[Path]:
    """Return a file and those beside it that it imports, and that these import, and so on.

    Defaults are found by value; see `_defaults`.
    """
    found, waiting = {source}, [source]
    while waiting:
        names = {
            name
            for node in ast.walk(ast.parse(waiting.pop().read_text(encoding="utf-8")))
            for name in _imported(node)
            if not name.endswith(DEFAULTS)
        }
        beside = {source.with_name(f"{name}.py") for name in names}
        new = {file for file in beside if file.is_file()} - found
        found |= new
        waiting += new
    return found


def _imported(node: ast.AST) -> Iterator[str]:
    """Yield the last parts of the names that a statement imports, or imports from."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [alias.name for alias in node.names]
        module = node.module if isinstance(node, ast.ImportFrom) else None
        yield from (name.rpartition(".")[2] for name in [*names, module or ""])


def _others(family: str, task: str) -> Iterator[Path]:
    """Yield the files of families, tasks and formats that the run does not use."""
    lineage = families.get(family).__mro__  # a family may change one that it builds on
    found: list[Any] = [one for name in families if (one := families.get(name)) not in lineage]
    found += [tasks.get(name) for name in tasks if name != task]
    found += [type(formats.get(name)) for name in formats]
    for component in found:
        yield Path(inspect.getfile(component))


def execute(
    spec: RunSpec,
    folder: Path,
    *,
    on_progress: OnProgress | None = None,
    on_start: OnStart | None = None,
    cache: Path | None = None,
    lock: int | None = None,
) -> RunResult:
    """Run the engine in a process of its own; what it leaves lies in ``folder``.

    A run that was cut short goes on where it was. The process ends when this one does.

    Args:
        spec: what to do, with absolute places.
        folder: of this run alone; it gets ``spec.json``, ``checkpoint`` and ``result.json``.
        on_progress: receives the engine's progress events.
        on_start: receives the process, so that it can be ended early.
        cache: folder for what frozen encoders say of texts that belong to no pair.
        lock: descriptor of a locked file that the process holds as long as it lives.

    Raises:
        RunFailed: the run ended with an error.
    """
    state = folder / STATE
    state.mkdir(parents=True, exist_ok=True)
    (folder / SPEC).write_text(spec.model_dump_json(indent=2), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.child", str(folder / SPEC), str(folder)]
    with (folder / LOG).open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            [*command, "--state", str(state), "--save-every", "10"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=ROOT,
            env=_environment(spec, cache),
            pass_fds=() if lock is None else (lock,),
        )
        if on_start is not None:
            on_start(process)
        last = _follow(process, on_progress)
    if process.returncode or "result" not in last:
        raise _failure(last, folder / LOG)
    shutil.rmtree(state)
    return RunResult.model_validate(last["result"])


def _environment(spec: RunSpec, cache: Path | None) -> dict[str, str]:
    kept = {**os.environ, "OMP_NUM_THREADS": str(spec.threads)}
    if cache is None:
        return kept
    # Published data sets: nobody will ask for a pair of these to be deleted from the cache.
    return {**kept, CACHE_VARIABLE: str(cache), PAIRS_VARIABLE: "1"}


def _follow(process: subprocess.Popen[str], on_progress: OnProgress | None) -> dict[str, Any]:
    """Read the process's lines to their end, wait for it, and return the last line.

    What is no JSON object was printed before the engine took the output for itself, by a
    ``sitecustomize`` for example.
    """
    last: dict[str, Any] = {}
    with process:
        for line in process.stdout or ():
            if not line.endswith("\n"):
                break  # the process was killed while it wrote
            try:
                said = json.loads(line)
            except json.JSONDecodeError:
                continue
            if not isinstance(said, dict):
                continue
            last = said
            if on_progress is not None and "progress" in last:
                on_progress(Progress.model_validate(last["progress"]))
        process.wait()  # it ends itself when its standard input is closed, as the block does at its end
    return last


def _failure(last: dict[str, Any], log: Path) -> RunFailed:
    if "error" in last:
        return RunFailed(last["error"]["code"], last["error"]["message"])
    said = log.read_text(encoding="utf-8", errors="replace").strip()[-1500:]
    return RunFailed("crashed", said or "the process was killed")
