"""Unimodal utility: is an image, graph or text still as useful on its own?

A linear probe (logistic regression on standardised pooled embeddings of f_V, or of f_L) is trained
on retained pairs and tested on deleted ones, anew for each model (paper, Table 5). The paper says
neither whether its classifiers are trained anew nor what they predict, so both are decided here.

- Trained anew, a probe asks whether the knowledge is still there. ``transferred`` in ``details``
  is the other reading: the probe of the model before, on the embeddings of the model after. It also
  falls when embeddings only turned, which breaks whatever was built on the old ones.
- Classes are the pairs' labels. Retrieval has none, and a class must exist in every data set, so
  there it is the group that an item (or text) belongs to: k-means clusters of the embeddings of the
  model before, fitted to its retained pairs. Clusters are cut by planes, so that a linear probe of
  that model can learn them: the value before is the ceiling, and the one after says how much of
  the order is left.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from engine.metrics.base import Evidence, Floats, Labels, Moment, Vectors, metrics
from engine.metrics.labels import share, share_by_label
from engine.metrics.reasons import not_finite, too_few
from engine.spec import Metric

MOST_CLUSTERS = 10
LEAST_IN_CLUSTER = 20
"""Retained pairs for each cluster, on average."""
LEAST_RETAINED = 2 * LEAST_IN_CLUSTER
ITERATIONS = 200
"""Steps of the solver: a probe that has not quite converged is a probe as well."""

Side = Literal["items", "texts"]


@dataclass(frozen=True)
class Classes:
    """What a probe predicts: the classes of retained and of deleted pairs, and what they are."""

    kind: Literal["labels", "clusters of the model before"]
    retained: Labels
    deleted: Labels


@metrics.register("probes")
def probes(evidence: Evidence, before: Evidence | None, moment: Moment) -> list[Metric]:
    """Return ``probe_item`` (of f_V) and ``probe_text`` (of f_L), accuracies in points."""
    origin = evidence if moment == "before" else before
    return [
        _metric(evidence, origin, moment, "items", "probe_item"),
        _metric(evidence, origin, moment, "texts", "probe_text"),
    ]


def fit_probe(vectors: Vectors, classes: Labels) -> Pipeline:
    """Return a probe fitted to embeddings ``(n, d)`` and classes ``(n,)``, two at least."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=ITERATIONS))
    with _unconverged():
        return probe.fit(vectors, classes)


def _metric(
    evidence: Evidence, origin: Evidence | None, moment: Moment, side: Side, name: str
) -> Metric:
    given = _classes(evidence, origin, side)
    found: dict[str, Any] = {"value": None, "unavailable": given}
    if isinstance(given, Classes):
        hits = _hits(_probe(evidence, side, given), evidence, side, given)
        figure = share(hits, evidence.seed)
        details = _details(hits, given, evidence.seed)
        if origin is not None and origin is not evidence:
            details["transferred"] = _transferred(origin, evidence, side, given)
        found = {"value": figure.value, "interval": figure.interval, "details": details}
    return Metric(
        name=name,
        moment=moment,
        subset=evidence.subset,
        n=len(evidence.deleted_vectors),
        direction="higher",
        unit="points",
        **found,
    )


def _vectors(evidence: Evidence, side: Side) -> tuple[Vectors, Vectors]:
    """Return the embeddings of deleted ``(n, d)`` and of retained pairs ``(m, d)``."""
    return getattr(evidence.deleted_vectors, side), getattr(evidence.retained_vectors, side)


def _classes(evidence: Evidence, origin: Evidence | None, side: Side) -> Classes | str:
    """Return what to predict, or the reason why nothing can be predicted."""
    deleted, retained = _vectors(evidence, side)
    reason = (
        too_few("deleted", len(deleted), 1)
        or too_few("retained", len(retained), LEAST_RETAINED)
        or not_finite(deleted, retained)
    )
    if reason:
        return reason
    kept, gone = evidence.retained_vectors.labels, evidence.deleted_vectors.labels
    if kept is not None and gone is not None:
        several = len(np.unique(kept)) > 1
        return Classes("labels", kept, gone) if several else "the retained pairs have one label"
    if origin is None:
        return "needs the model before unlearning, by whose embeddings pairs are grouped"
    return _clusters(origin, side)


def _clusters(origin: Evidence, side: Side) -> Classes | str:
    deleted, retained = _vectors(origin, side)
    grouping = origin.once(f"{side} clusters", lambda: _fit_clusters(retained, origin.seed))
    if grouping is None:
        return "the embeddings of the model before are all the same, so that there are no groups"
    kept, gone = (
        np.asarray(made, np.int64) for made in (grouping.labels_, grouping.predict(deleted))
    )
    return Classes("clusters of the model before", kept, gone)


def _fit_clusters(vectors: Vectors, seed: int) -> KMeans | None:
    wanted = min(MOST_CLUSTERS, len(vectors) // LEAST_IN_CLUSTER, len(np.unique(vectors, axis=0)))
    if wanted < 2:
        return None
    with _unconverged():
        return KMeans(wanted, n_init=1, random_state=seed).fit(vectors)


def _probe(evidence: Evidence, side: Side, classes: Classes) -> Pipeline:
    retained = _vectors(evidence, side)[1]
    return evidence.once(f"{side} probe", lambda: fit_probe(retained, classes.retained))


def _hits(probe: Pipeline, evidence: Evidence, side: Side, classes: Classes) -> Floats:
    """Return 1 where the probe gives a deleted pair its class, else 0: ``(n,)``."""
    predicted = probe.predict(_vectors(evidence, side)[0])
    return np.asarray(predicted == classes.deleted, dtype=np.float64)


def _details(hits: Floats, classes: Classes, seed: int) -> dict[str, Any]:
    counts = np.unique(classes.deleted, return_counts=True)[1]
    details: dict[str, Any] = {
        "classes": classes.kind,
        "n_classes": len(np.unique(classes.retained)),
        "n_retained": len(classes.retained),
        "most_frequent_class": 100 * float(counts.max() / counts.sum()),
    }
    if classes.kind == "labels":
        details["per_label"] = share_by_label(classes.deleted, hits, seed)
    return details


def _transferred(
    before: Evidence, evidence: Evidence, side: Side, classes: Classes
) -> dict[str, Any]:
    """Return the accuracy of the probe of the model before on the embeddings of this model."""
    sizes = [_vectors(model, side)[0].shape[1] for model in (before, evidence)]
    if sizes[0] != sizes[1]:
        return {"value": None, "unavailable": f"embeddings had {sizes[0]} dimensions before"}
    figure = share(_hits(_probe(before, side, classes), evidence, side, classes), evidence.seed)
    return {"value": figure.value, "interval": figure.interval and list(figure.interval)}


@contextmanager
def _unconverged() -> Iterator[None]:
    """Within the context, a solver that stops early does so in silence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
