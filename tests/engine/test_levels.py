"""Where earlier requests ended, from the card of a checkpoint."""

import math

import pytest
import torch

from engine.division import Division
from engine.levels import History, levels, measured
from engine.metrics.base import Moment
from engine.spec import DataSpec, Metric, RunSpec


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


def division(*requests: int) -> Division:
    none = torch.zeros(0, dtype=torch.int64)
    by = torch.tensor(requests, dtype=torch.int64)
    return Division(none, by, by, none, none, none, {})


def test_each_pair_has_what_the_first_run_of_its_request_told() -> None:
    history = History.model_validate(
        {
            "unlearning": [
                {"method": "retrain", "d_f": {"a": 30.0}},
                {"pairs": 4},
                {"d_f": {"b": 10.0, "a": 50.0}},
            ]
        }
    )
    found = levels(history, spec(b=["p1"], unknown=["p2"], a=["p3"]), division(2, 0, 1, 0))
    assert found[[0, 1, 3]].tolist() == [30.0, 10.0, 10.0]
    assert math.isnan(found[2])


def test_without_a_history_nothing_is_known() -> None:
    assert levels(History(), spec(), division()).tolist() == []
    assert levels(History(), spec(a=["p1"]), division(0)).isnan().all()


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
        ([metric("forget", 12.0), metric("forget", 50.0, moment="before")], {"a": 12.0}),
        ([metric("forget", 12.0), metric("request:a", 14.0)], {"a": 14.0}),
        ([metric("forget", None), metric("forget", 0.4, "unseen_auc")], {}),
    ],
)
def test_a_card_tells_what_the_audit_measured_after_the_run(
    found: list[Metric], told: dict[str, float]
) -> None:
    assert measured(found, {"a": ["p1"]}) == told
