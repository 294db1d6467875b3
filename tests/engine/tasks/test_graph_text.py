from engine.families import Albef, GcnBert
from engine.tasks import GraphText


def test_families_of_another_modality_are_refused_with_the_reason() -> None:
    assert GraphText.refusal(GcnBert) is None
    reason = GraphText.refusal(Albef)
    assert reason is not None
    assert "graph" in reason
