"""Each kind of task has MultiDelete's defaults of its own; what a request gives takes their place."""

import pytest

from engine.methods import multidelete_defaults as kinds
from engine.methods.multidelete_params import MultiDeleteParams, TaskDefaults
from engine.spec import Modality, Update
from engine.tasks import tasks


@pytest.mark.parametrize(
    ("task", "modality", "update", "expected"),
    [
        ("graph_text", "graph", "all", kinds.GRAPHS),
        ("graph_text", "graph", "fusion", kinds.GRAPHS_BY_FUSION),
        ("visual_entailment", "image", "all", kinds.IMAGES),
        ("visual_entailment", "image", "fusion", kinds.IMAGES_BY_FUSION),
        ("nlvr", "image", "all", kinds.TWO_IMAGES),
        ("nlvr", "image", "fusion", kinds.TWO_IMAGES_BY_FUSION),
        ("retrieval", "image", "all", kinds.RANKING),
        ("retrieval", "image", "fusion", kinds.RANKING_BY_FUSION),
    ],
)
def test_each_kind_of_task_has_its_own(
    task: str, modality: Modality, update: Update, expected: TaskDefaults
) -> None:
    found = kinds.defaults(tasks.get(task), modality, update)
    assert found is expected
    given = found.given(MultiDeleteParams(alpha=3.5))
    assert (given.alpha, given.beta) == (3.5, expected.beta)
