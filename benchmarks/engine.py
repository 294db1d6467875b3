"""MultiDelete against retraining on the handwritten digits, as the demo trains and forgets them.

Each run is a process of its own. The original is kept in the work folder, under a digest of all
that it depends on.
"""

import hashlib
import os
import shutil
import statistics
import subprocess
import sys
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import engine
from app.demo.data import DemoData, choose, prepare
from benchmarks.figures import Bar, BenchmarkError, Figure, median_figure
from engine import DataSpec, RunResult, RunSpec

NAME = "engine"
SEED = 0
SHARE = 0.05
ROUNDS = 2
FASTER_BAR = Bar("at least", 5)
_LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "scikit-learn")


def measure(work: Path) -> list[Figure]:
    """Forget the same pairs by both methods, in turn, from the same original."""
    with TemporaryDirectory(dir=work) as name:
        folder = Path(name)
        data = prepare(None, folder, SEED)
        training = _training(data)
        forget = list(choose(data, SHARE, SEED).targets["pair_ids"])
        unlearning = training.model_copy(
            update={
                "action": "unlearn",
                "checkpoint": _original(training, work / "originals") / "checkpoint",
                "forget": {"request": forget},
            }
        )
        # MultiDelete is short: it is run before, between and after what it is compared with.
        multidelete = [_unlearn(unlearning, "multidelete", folder)]
        retrain: list[RunResult] = []
        for _ in range(ROUNDS):
            retrain.append(_unlearn(unlearning, "retrain", folder))
            multidelete.append(_unlearn(unlearning, "multidelete", folder))
    return _figures(len(forget), multidelete, retrain)


def _training(data: DemoData) -> RunSpec:
    return RunSpec(
        action="train",
        data=DataSpec(manifest=data.manifest, root=data.root),
        family=data.recipe.family,
        task=data.recipe.task,
        config=dict(data.recipe.config),
        training=dict(data.recipe.training),
        seed=SEED,
    )


def _original(training: RunSpec, kept: Path) -> Path:
    """Return the folder of the original's run; it is trained unless an earlier run of us kept it.

    A training that was cut short goes on where it was.
    """
    folder = kept / _digest(training)
    if not (folder / "result.json").exists():
        state = folder / "state"
        state.mkdir(parents=True, exist_ok=True)
        _run(training, folder, "--state", str(state))
        shutil.rmtree(state)
    return folder


def _digest(training: RunSpec) -> str:
    """Return a digest of what decides about the original: run, data, engine and its libraries."""
    found = hashlib.sha256(training.model_dump_json(exclude={"data"}).encode())
    found.update(training.data.manifest.read_bytes())
    sources = Path(engine.__file__ or "").parent
    for source in sorted(sources.rglob("*.py")):
        found.update(f"{source.relative_to(sources)}\n".encode() + source.read_bytes())
    found.update(" ".join(version(library) for library in _LIBRARIES).encode())
    return found.hexdigest()[:32]


def _unlearn(spec: RunSpec, method: str, folder: Path) -> RunResult:
    chosen = spec.model_copy(update={"method": method})
    with TemporaryDirectory(dir=folder) as out:
        return _run(chosen, Path(out))


def _run(spec: RunSpec, out: Path, *options: str) -> RunResult:
    """Run the engine in a process of its own, on one thread.

    Raises:
        BenchmarkError: it failed; the sentence quotes what it said.
    """
    file = out / "spec.json"
    file.write_text(spec.model_dump_json(), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "engine", str(file), str(out), *options],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        said = (done.stdout + done.stderr).strip()[-1500:]
        raise BenchmarkError(f"the engine's {spec.method or spec.action} run failed: {said}")
    return RunResult.model_validate_json((out / "result.json").read_bytes())


def _figures(pairs: int, multidelete: list[RunResult], retrain: list[RunResult]) -> list[Figure]:
    """Compare each Retrain with the MultiDelete runs around it."""
    fast = [result.cost.method_seconds for result in multidelete]
    slow = [result.cost.method_seconds for result in retrain]
    around = [statistics.mean(two) for two in pairwise(fast)]
    ratios = [long / short for long, short in zip(slow, around, strict=True)]
    what = f"of {pairs} deleted pairs"
    return [
        median_figure(NAME, "Retrain's seconds beside MultiDelete's", ratios, "", FASTER_BAR),
        median_figure(NAME, f"MultiDelete {what}", fast, "s"),
        median_figure(NAME, f"Retrain {what}", slow, "s"),
        _forgetting("MultiDelete", multidelete[0]),
        _forgetting("Retrain", retrain[0]),
    ]


def _forgetting(words: str, result: RunResult) -> Figure:
    """Show that the fast run did its work: D_f and D_test after it."""
    after = {
        metric.name: metric
        for metric in result.metrics
        if metric.moment == "after"
        and metric.value is not None
        and metric.subset in ("forget", "test")
    }
    deleted, test = after["d_f"], after["d_test"]
    note = f"of {deleted.n} pairs; D_test {test.value or 0:.1f}"
    return Figure(NAME, f"D_f after {words}", deleted.value or 0.0, "", note=note)
