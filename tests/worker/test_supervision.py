"""The trainer as its worker sees it: told to end, refusing, crashing."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.worker.worker_world import recipe
from worker import protocol
from worker.supervision import TrainerCrashed, TrainerRefused, run_trainer


class Told(Exception):
    """What a check raises to have the work stopped."""


Run = Callable[..., dict[str, Any]]


@pytest.fixture
def spec(digits: Path) -> dict[str, Any]:
    """Give the spec of a training that would take hours."""
    data = {"manifest": str(digits / "manifest.jsonl"), "root": str(digits)}
    described = recipe(epochs=10_000)
    return {"action": "train", "data": data, "family": "albef", "task": "retrieval", **described}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Give a function that runs the trainer on a spec in a folder of this test."""

    def start(
        spec: Mapping[str, Any],
        check: Callable[[], None] = lambda: None,
        report: Callable[[Mapping[str, Any]], None] = lambda _: None,
    ) -> dict[str, Any]:
        (tmp_path / protocol.SPEC).write_text(json.dumps(spec))
        cache = tmp_path / "cache"
        places = {"state": tmp_path / "state", "cache": cache}
        return run_trainer(
            tmp_path, **places, threads=1, save_every=0.0, report=report, check=check
        )

    return start


def _trainers() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [child for child in children if "worker.trainer" in child.cmdline()]


def _kill() -> None:
    for trainer in _trainers():
        trainer.kill()


@pytest.mark.parametrize("phase", [None, "load", "train"])
def test_a_trainer_that_is_told_to_end_is_gone_at_once(
    run: Run, spec: dict[str, Any], phase: str | None
) -> None:
    phases: list[Any] = [None]
    asked: list[float] = []

    def check() -> None:
        if phase in phases:
            asked.append(time.monotonic())
            raise Told

    with pytest.raises(Told):
        run(spec, check, lambda progress: phases.append(progress["phase"]))
    # It used to be given ten seconds, and took them while it prepared its data.
    assert time.monotonic() - asked[0] < 8
    assert not _trainers()


def test_a_trainer_that_does_not_listen_is_killed_after_moments(
    run: Run, spec: dict[str, Any]
) -> None:
    asked: list[float] = []

    def check() -> None:
        _trainers()[0].suspend()  # as deaf as one inside of a library's long call
        asked.append(time.monotonic())
        raise Told

    with pytest.raises(Told):
        run(spec, check)
    assert time.monotonic() - asked[0] < 8
    assert not _trainers()


def test_a_killed_trainer_has_crashed_and_the_signal_is_named(
    run: Run, spec: dict[str, Any]
) -> None:
    with pytest.raises(TrainerCrashed, match="SIGKILL"):
        run(spec, _kill)


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"family": 7}, "run_error", "family"),
        ({"training": {"epochs": 0}}, "invalid_spec", "epochs"),
        ({"data": {"manifest": "/nowhere.jsonl", "root": "/"}}, "data_error", "nowhere"),
        ({"action": "evaluate", "checkpoint": "/nowhere"}, "checkpoint_error", "/nowhere"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_spec_that_cannot_run_is_refused_with_the_reason(
    run: Run, spec: dict[str, Any], change: dict[str, Any], code: str, words: str
) -> None:
    with pytest.raises(TrainerRefused, match=words) as refused:
        run({**spec, **change})
    assert refused.value.code == code


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits another process")
def test_a_trainer_without_memory_has_crashed(run: Run, spec: dict[str, Any]) -> None:
    """Its address space is limited once it is loaded, so that the next large block is refused."""
    limited: list[int] = []

    def limit(progress: Mapping[str, Any]) -> None:
        if progress["phase"] == "train" and not limited:
            trainer = _trainers()[0]
            limited.append(trainer.memory_info().vms)
            trainer.rlimit(psutil.RLIMIT_AS, (limited[0], limited[0]))

    with pytest.raises(TrainerCrashed):
        run(spec, report=limit)
    assert limited
