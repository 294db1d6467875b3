"""MultiDelete against retraining on the handwritten digits, as the demo trains and forgets them.

Each run is a process of its own. The original is kept in the work folder, under a digest of all
that it depends on.
"""

import statistics
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from app.demo.data import DemoData, choose, prepare
from benchmarks.figures import Bar, Figure, median_figure
from benchmarks.runs import CHECKPOINT, RESULT, data_digest, digest, execute
from engine import DataSpec, RunResult, RunSpec

NAME = "engine"
SEED = 0
SHARE = 0.05
ROUNDS = 2
FASTER_BAR = Bar("at least", 5)


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
                "checkpoint": _original(training, work / "originals") / CHECKPOINT,
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
    data = training.data
    folder = kept / digest(training, data_digest(data.manifest, data.root))
    if not (folder / RESULT).exists():
        execute(training, folder)
    return folder


def _unlearn(spec: RunSpec, method: str, folder: Path) -> RunResult:
    with TemporaryDirectory(dir=folder) as out:
        return execute(spec.model_copy(update={"method": method}), Path(out))


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
