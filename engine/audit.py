"""The audit of a model: utility on held-out pairs, and every registered metric of forgetting."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.division import Division
from engine.families.base import PairModel
from engine.inputs import Inputs
from engine.metrics import metrics
from engine.metrics.base import (
    NO_REFERENCES,
    Embedded,
    Evidence,
    Labels,
    Moment,
    Observed,
    References,
    Vectors,
)
from engine.monitor import Monitor
from engine.shares import dividing
from engine.spec import Cost, Metric
from engine.tasks.base import Task, require_finite
from engine.unlearning import draw

CHUNK = 256
"""Pairs that are scored at once."""
RETAINED_FACTOR = 5
"""Retained pairs that are measured for each deleted pair (five draws of |D_f|)."""
LEAST_RETAINED = 500
"""Retained pairs that are measured even when few are deleted: members for the attack's fit."""
MOST_UNSEEN = 5000
"""Validation pairs, and test pairs, that are scored at most; utility uses the whole split."""
MOST_PROBED = 1000
"""Retained pairs whose unimodal embeddings are taken, to train linear probes."""


@dataclass(frozen=True)
class View:
    """What one model says: observations and unimodal embeddings by row, and its utility.

    Attributes:
        observed: of all pairs that are measured, found by ``places``.
        places: from row to place in ``observed``.
        embedded: of deleted pairs and of some retained ones, found by ``embedded_places``.
        embedded_places: from row to place in ``embedded``.
        utility: metrics of the task.
        references: what reference models say of some pairs, or why there are none.
        kept: what metrics keep from one subset to the next.
    """

    observed: Observed
    places: dict[int, int]
    embedded: Embedded
    embedded_places: dict[int, int]
    utility: list[Metric]
    references: References = NO_REFERENCES
    kept: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def of(self, rows: Tensor) -> Observed:
        """Return the observations of ``rows`` ``(n,)``."""
        at = [self.places[row] for row in rows.tolist()]
        labels = None if self.observed.labels is None else self.observed.labels[at]
        return Observed(self.observed.scores[at], self.observed.outputs[at], labels)

    def vectors_of(self, rows: Tensor) -> Embedded:
        """Return the unimodal embeddings of ``rows`` ``(n,)``."""
        at = [self.embedded_places[row] for row in rows.tolist()]
        labels = None if self.embedded.labels is None else self.embedded.labels[at]
        return Embedded(self.embedded.items[at], self.embedded.texts[at], labels)


class Auditor:
    """Measures the models of one run on the same pairs.

    Args:
        task: gives scores, outputs and utility.
        division: which pairs are deleted, retained and held out.
        seed: of every sample.
        monitor: progress and cancellation.
    """

    def __init__(self, task: Task, division: Division, seed: int, monitor: Monitor) -> None:
        self.task = task
        self.division = division
        self.seed = seed
        self.monitor = monitor
        generator = torch.Generator().manual_seed(seed)
        wanted = max(RETAINED_FACTOR * len(division.deleted), LEAST_RETAINED)
        self.retained = _sample(division.retain, wanted, generator)
        self.validation = _sample(division.validation, MOST_UNSEEN, generator)
        self.test = _sample(division.test, MOST_UNSEEN, generator)
        self.probed = _sample(self.retained, MOST_PROBED, generator)

    def view(self, model: PairModel, inputs: Inputs, moment: Moment) -> View:
        """Let a model score and embed every pair that is measured, once.

        Raises:
            NonFiniteLoss: what the model says is not finite, so that nothing can be measured.
            Cancelled: the caller wants the run to stop.
        """
        model.eval()
        # The candidates of an output distribution must have the same standing for every pair.
        inputs.choose_gallery(self.division.retain, self.seed)
        rows = torch.cat([self.division.deleted, self.retained, self.validation, self.test])
        probed = torch.cat([self.division.deleted, self.probed])
        if not self.division.subsets():
            rows, probed = rows[:0], probed[:0]
        with torch.no_grad(), dividing(), inputs.freeze(model):
            observed = self._observe(model, inputs, rows, moment)
            embedded = self._embed(model, inputs, probed)
            utility = self._utility(model, inputs, moment)
        return View(observed, _places(rows), embedded, _places(probed), utility)

    def metrics(self, view: View, before: View | None, moment: Moment) -> list[Metric]:
        """Return the utility of a model and every metric of every deleted subset."""
        found = list(view.utility)
        for subset, rows in self.division.subsets().items():
            evidence = self._evidence(view, subset, rows)
            earlier = None if before is None else self._evidence(before, subset, rows)
            for name in metrics:
                self.monitor.check()
                found.extend(metrics.get(name)(evidence, earlier, moment))
        return found

    def _observe(self, model: PairModel, inputs: Inputs, rows: Tensor, moment: Moment) -> Observed:
        scores, outputs, done = [torch.zeros(0)], [], 0
        for part in rows.split(CHUNK) if len(rows) else ():
            self.monitor.check()
            scores.append(self.task.scores(model, inputs, part).float().cpu())
            outputs.append(self.task.outputs(model, inputs, part).float().cpu())
            require_finite(scores[-1], "scores of pairs")
            require_finite(outputs[-1], "output distributions of pairs")
            done += len(part)
            if self.monitor.due():
                self.monitor.report(f"evaluate_{moment}", done, len(rows))
        return Observed(
            scores=torch.cat(scores).double().numpy(),
            outputs=(torch.cat(outputs) if outputs else torch.zeros(0, 1)).double().numpy(),
            labels=_labels(inputs, rows),
        )

    def _embed(self, model: PairModel, inputs: Inputs, rows: Tensor) -> Embedded:
        """Return the pooled outputs of f_V and f_L, which scoring has just computed."""
        items, texts = [], []
        for part in rows.split(CHUNK) if len(rows) else ():
            self.monitor.check()
            item, text = inputs.encode(model, part)
            items.append(item.pooled.float().cpu())
            texts.append(text.pooled.float().cpu())
        return Embedded(_stacked(items), _stacked(texts), _labels(inputs, rows))

    def _utility(self, model: PairModel, inputs: Inputs, moment: Moment) -> list[Metric]:
        found: list[Metric] = []
        splits = {"test": self.division.test, "val": self.division.validation}
        for name, rows in splits.items():
            self.monitor.check()
            changes = {"subset": name, "moment": moment}
            measured = self.task.utility(model, inputs, rows)
            found.extend(metric.model_copy(update=changes) for metric in measured)
        return found

    def _evidence(self, view: View, subset: str, rows: Tensor) -> Evidence:
        return Evidence(
            subset=subset,
            deleted=view.of(rows),
            retained=view.of(self.retained),
            validation=view.of(self.validation),
            unseen=view.of(self.test if len(self.test) else self.validation),
            seed=self.seed,
            deleted_vectors=view.vectors_of(rows),
            retained_vectors=view.vectors_of(self.probed),
            references=view.references,
            kept=view.kept,
        )


def cost_metrics(cost: Cost, pairs: int) -> list[Metric]:
    """Return the cost of a run as metrics; ``pairs`` is how many it forgot (or trained on)."""
    units = {
        "method_seconds": "s",
        "peak_memory_bytes": "bytes",
        "trained_parameters": "parameters",
        "samples_seen": "pairs",
    }
    return [
        Metric(
            name=name,
            moment="after",
            subset="forget",
            value=float(getattr(cost, name)),
            n=pairs,
            direction="lower",
            unit=unit,
        )
        for name, unit in units.items()
    ]


def _sample(rows: Tensor, wanted: int, generator: torch.Generator) -> Tensor:
    """Draw at most ``wanted`` distinct entries of ``rows``, in their order."""
    return draw(rows, min(wanted, len(rows)), generator).sort().values


def _places(rows: Tensor) -> dict[int, int]:
    return {row: at for at, row in enumerate(rows.tolist())}


def _labels(inputs: Inputs, rows: Tensor) -> Labels | None:
    """Return the labels of ``rows`` ``(n,)``, or None where no pair has one."""
    labels = inputs.labels[rows].numpy().astype(np.int64)
    return labels if (labels >= 0).any() else None


def _stacked(parts: list[Tensor]) -> Vectors:
    found: Vectors = (torch.cat(parts) if parts else torch.zeros(0, 1)).numpy()
    return found


def find(found: Sequence[Metric], name: str, moment: Moment, subset: str) -> Metric | None:
    """Return the metric of that name, moment and subset, or None."""
    wanted = (name, moment, subset)
    return next((m for m in found if (m.name, m.moment, m.subset) == wanted), None)
