"""Where earlier requests ended, from the card of a checkpoint."""

import math

import pytest
import torch

from engine.division import Division
from engine.levels import history, key, levels, measured
from engine.metrics.base import Moment
from engine.spec import DataSpec, Metric, RunSpec

PARENT = "5e" * 32


def spec(**forgotten: list[str]) -> RunSpec:
    data = DataSpec(manifest="manifest.jsonl", root=".")
    return RunSpec.model_validate(
        {
            "action": "unlearn",
            "family": "albef",
            "task": "retrieval",
            "data": data,
            "forgotten": forgotten,
        }
    )


def division(
    *requests: int, forget: tuple[int, ...] = (), named: dict[str, list[int]] | None = None
) -> Division:
    none = torch.zeros(0, dtype=torch.int64)
    by = torch.tensor(requests, dtype=torch.int64)
    rows = {name: torch.tensor(given) for name, given in (named or {}).items()}
    return Division(torch.tensor(forget, dtype=torch.int64), by, by, none, none, none, rows)


def step(method: str = "multidelete", **d_f: object) -> dict[str, object]:
    return {
        "method": method,
        "pairs": 4,
        "parent_sha256": PARENT,
        "d_f": {key(PARENT, name): level for name, level in d_f.items()},
    }


def test_each_pair_has_what_the_first_run_of_its_request_told() -> None:
    card = {"unlearning": [step(a=30.0), {"method": "ul", "pairs": 4}, step(b=10.0, a=50.0)]}
    found = levels(card, spec(b=["p1"], unknown=["p2"], a=["p3"]), division(2, 0, 1, 0))
    assert found[[0, 1, 3]].tolist() == [30.0, 10.0, 10.0]
    assert math.isnan(found[2])


def test_a_model_that_was_trained_anew_never_saw_what_was_forgotten_before() -> None:
    card = {"unlearning": [step(a=13.0), step("retrain", b=43.0), step(c=12.0)]}
    found = levels(card, spec(a=["p1"], b=["p2"], c=["p3"]), division(0, 1, 2))
    assert math.isnan(found[0])
    assert found[1:].tolist() == [43.0, 12.0]


def test_without_a_history_nothing_is_known() -> None:
    assert levels({}, spec(), division()).tolist() == []
    assert levels({"unlearning": []}, spec(a=["p1"]), division(0)).isnan().all()


@pytest.mark.parametrize(
    "given",
    [
        None,
        1,
        "x",
        {"a": 1},
        ["x", None],
        [{"d_f": None, "method": "multidelete"}],
        [step(a="low")],
        [step(a=True)],
        [step(a=math.nan)],
        [step(a=math.inf)],
        [step(a=-0.1)],
        [step(a=100.1)],
    ],
)
def test_a_history_that_is_none_of_ours_tells_nothing(given: object) -> None:
    assert levels({"unlearning": given}, spec(a=["p1"]), division(0)).isnan().all()
    assert history({"unlearning": given}) == (given if isinstance(given, list) else [])


def test_a_card_does_not_name_a_request_and_the_same_one_stands_for_another_in_another_run() -> (
    None
):
    assert "request-7" not in key(PARENT, "request-7")
    names = {key(parent, name) for parent in (PARENT, "6f" * 32) for name in ("a", "b")}
    assert len(names) == 4


def metric(subset: str, value: float | None, name: str = "d_f", moment: Moment = "after") -> Metric:
    return Metric(
        name=name,
        moment=moment,
        subset=subset,
        value=value,
        n=3,
        direction="lower",
        unavailable=None if value is not None else "too few",
    )


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ([metric("forget", 12.0), metric("forget", 50.0, moment="before")], 12.0),
        ([metric("forget", 12.0), metric("request:a", 14.0)], 14.0),
        ([metric("forget", None), metric("forget", 0.4, "unseen_auc")], None),
    ],
)
def test_a_card_tells_what_the_audit_measured_after_the_run(
    found: list[Metric], told: float | None
) -> None:
    given = measured(found, division(forget=(3, 4), named={"a": [3, 4]}), PARENT)
    assert given == ({} if told is None else {key(PARENT, "a"): told})


def test_a_request_that_names_earlier_pairs_tells_of_what_its_run_forgot() -> None:
    found = [metric("forget", 20.0), metric("request:b", 10.4), metric("request:c", 21.0)]
    made = division(0, forget=(3, 4), named={"b": [0, 3], "c": [4]})
    assert measured(found, made, PARENT) == {key(PARENT, "b"): 20.0, key(PARENT, "c"): 21.0}
