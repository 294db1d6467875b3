from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from engine.metrics import Evidence
from engine.metrics.base import Embedded
from engine.metrics.probes import fit_probe, probes
from engine.spec import Metric

Make = Callable[..., Evidence]

CENTRES = np.array([[4.0, 0], [0, 4], [-4, 0], [0, -4]], np.float32)


def _embedded(n: int, seed: int, *, labels: bool = False, blurred: float = 0.3) -> Embedded:
    """Return n pairs around four centres in items and none in texts; the label is the centre's."""
    random = np.random.default_rng(seed)
    kinds = np.arange(n) % 4
    items = CENTRES[kinds] + blurred * random.normal(size=(n, 2))
    texts = random.normal(size=(n, 3))
    given = kinds.astype(np.int64) if labels else None
    return Embedded(items.astype(np.float32), texts.astype(np.float32), given)


@pytest.fixture
def make_probed(make_evidence: Make) -> Callable[..., Evidence]:
    """Return a maker of evidence with embeddings of deleted and retained pairs."""

    def make(deleted: Embedded, retained: Embedded) -> Evidence:
        evidence = make_evidence()
        return replace(evidence, deleted_vectors=deleted, retained_vectors=retained)

    return make


def _by_name(found: list[Metric]) -> dict[str, Metric]:
    return {metric.name: metric for metric in found}


def test_a_probe_finds_a_class_that_a_plane_cuts_off() -> None:
    vectors = np.array([[-2.0, 1], [-1, 0], [1, 1], [2, 0]], np.float32)
    probe = fit_probe(vectors, np.array([0, 0, 1, 1]))
    assert probe.predict(np.array([[-9.0, 0.5], [9, 0.5]])).tolist() == [0, 1]


def test_labels_are_the_classes_where_there_are_some(make_probed: Make) -> None:
    evidence = make_probed(_embedded(40, 1, labels=True), _embedded(200, 2, labels=True))
    found = _by_name(probes(evidence, None, "after"))
    item, text = found["probe_item"], found["probe_text"]
    assert item.value == 100.0
    assert item.interval == pytest.approx((100 * 0.025 ** (1 / 40), 100.0))
    assert item.details["classes"] == "labels"
    assert item.details["per_label"]["3"]["n"] == 10
    assert text.value < 60  # texts say nothing of four classes
    assert text.details["most_frequent_class"] == 25.0


def test_without_labels_the_classes_are_clusters_of_the_model_before(make_probed: Make) -> None:
    evidence = make_probed(_embedded(80, 1), _embedded(80, 2))
    item = _by_name(probes(evidence, None, "before"))["probe_item"]
    assert item.value > 95
    assert item.details["classes"] == "clusters of the model before"
    assert item.details["n_classes"] == 4  # one for each 20 retained pairs
    assert "per_label" not in item.details
    assert "transferred" not in item.details


def test_a_model_that_lost_the_clusters_scores_lower_than_before(make_probed: Make) -> None:
    before = make_probed(_embedded(80, 1), _embedded(80, 2))
    lost = make_probed(_embedded(80, 1, blurred=20.0), _embedded(80, 2, blurred=20.0))
    first = _by_name(probes(before, None, "before"))["probe_item"]
    then = _by_name(probes(lost, before, "after"))["probe_item"]
    assert then.value < 55 < first.value
    assert then.interval[1] < first.interval[0]


def test_turned_embeddings_keep_their_use_but_not_that_of_an_old_probe(make_probed: Make) -> None:
    def turned(given: Embedded) -> Embedded:
        return replace(given, items=-given.items)

    before = make_probed(_embedded(80, 1), _embedded(80, 2))
    after = make_probed(turned(before.deleted_vectors), turned(before.retained_vectors))
    item = _by_name(probes(after, before, "after"))["probe_item"]
    assert item.value > 95
    assert item.details["transferred"]["value"] < 5


def test_a_model_that_did_not_change_has_the_same_probes(make_probed: Make) -> None:
    before = make_probed(_embedded(80, 1), _embedded(80, 2))
    after = replace(before, kept={})
    first, then = (
        _by_name(probes(before, None, "before")),
        _by_name(probes(after, before, "after")),
    )
    for name in ("probe_item", "probe_text"):
        assert then[name].value == first[name].value
        assert then[name].details["transferred"]["value"] == first[name].value


def test_embeddings_of_another_size_have_no_old_probe(make_probed: Make) -> None:
    before = make_probed(_embedded(80, 1), _embedded(80, 2))
    wider = [
        replace(one, items=np.tile(one.items, 2)) for one in (_embedded(80, 1), _embedded(80, 2))
    ]
    item = _by_name(probes(make_probed(*wider), before, "after"))["probe_item"]
    assert item.value > 95
    assert item.details["transferred"]["value"] is None
    assert "2 dimensions before" in item.details["transferred"]["unavailable"]


def test_probes_are_fitted_once_for_all_subsets(make_probed: Make) -> None:
    evidence = make_probed(_embedded(80, 1), _embedded(80, 2))
    probes(evidence, None, "before")
    kept = dict(evidence.kept)
    other = replace(evidence, subset="forgotten", deleted_vectors=_embedded(20, 3))
    assert _by_name(probes(other, None, "before"))["probe_item"].details["n_retained"] == 80
    assert other.kept == kept


@pytest.mark.parametrize(
    ("deleted", "retained", "reason"),
    [
        (_embedded(0, 1), _embedded(80, 2), "1 deleted pairs; 0 came"),
        (_embedded(9, 1), _embedded(39, 2), "40 retained pairs; 39 came"),
        (_embedded(9, 1), _embedded(40, 2), "needs the model before"),
        (
            replace(_embedded(9, 1), labels=np.zeros(9, np.int64)),
            replace(_embedded(80, 2), labels=np.zeros(80, np.int64)),
            "have one label",
        ),
        (
            _embedded(9, 1),
            replace(_embedded(40, 2), items=np.full((40, 2), np.nan, np.float32)),
            "not",
        ),
    ],
)
def test_probes_are_unavailable_with_the_reason(
    make_probed: Make, deleted: Embedded, retained: Embedded, reason: str
) -> None:
    item = _by_name(probes(make_probed(deleted, retained), None, "after"))["probe_item"]
    assert item.value is None
    assert reason in item.unavailable


def test_embeddings_that_are_all_the_same_have_no_groups(make_probed: Make) -> None:
    same = replace(_embedded(80, 2), items=np.ones((80, 2), np.float32))
    item = _by_name(probes(make_probed(_embedded(9, 1), same), None, "before"))["probe_item"]
    assert "no groups" in item.unavailable
