from collections.abc import Callable
from dataclasses import replace

from engine.metrics import Evidence


def test_what_a_metric_keeps_is_made_once_for_all_subsets_of_a_model(
    make_evidence: Callable[..., Evidence],
) -> None:
    calls: list[int] = []
    one = make_evidence()
    same_model, other_model = replace(one, subset="forgotten"), make_evidence()

    def make() -> int:
        calls.append(1)
        return len(calls)

    assert [one.once("a", make), same_model.once("a", make), one.once("b", make)] == [1, 1, 2]
    assert other_model.once("a", make) == 3
