"""A training that was killed goes on from its saved state, to the weights of one that was not."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import pytest
from safetensors import safe_open

from app.core.settings import Settings
from tests.worker.worker_world import World
from worker.context import Context
from worker.pipeline import run_job

PATIENCE_SECONDS = 120
ONE_STEP = {"batch_size": 64}  # an epoch has one step: there are fewer pairs


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"save_seconds": 0.0})


def _reported(world: World, job_id: str, attempt: int) -> list[int]:
    """Return the steps of the training that an attempt reported."""
    steps: list[int] = []
    number = 0
    for event in world.get(f"/v1/jobs/{job_id}/events?limit=1000")["items"]:
        number = event["data"].get("attempt", number)
        if number == attempt and event["data"].get("phase") == "train":
            steps.append(event["data"]["step"])
    return steps


def _saved(context: Context, job_id: str) -> int:
    """Return how many steps the saved state of a job's training has behind it."""
    for file in (context.settings.work / job_id).glob("state-*/train.safetensors"):
        with safe_open(file, framework="np") as state:
            return int(json.loads(state.metadata()["state"])["steps"])
    return 0


def _kill_trainer(context: Context) -> None:
    work = str(context.settings.work)
    for child in psutil.Process().children(recursive=True):
        if any(part.startswith(work) for part in child.cmdline()):
            child.kill()


@contextmanager
def _attempt_until(context: Context, job_id: str, moment: Callable[[], bool]) -> Iterator[None]:
    """Work on a job until ``moment`` holds; the block may then end the attempt, in its own way."""
    thread = threading.Thread(target=run_job, args=(context, job_id))
    thread.start()
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not moment():
            assert thread.is_alive(), "the attempt ended before its moment"
            assert time.monotonic() < deadline, "the moment did not come"
            time.sleep(0.02)
        yield
        thread.join(60)
        assert not thread.is_alive()
    finally:
        context.stopping.set()
        thread.join(60)
        context.stopping.clear()


def test_the_attempt_after_a_kill_goes_on_past_the_saved_step(
    world: World, context: Context
) -> None:
    job_id = world.train(epochs=10_000, **ONE_STEP)

    def past_what_a_start_from_nothing_reports_first() -> bool:
        reported = _reported(world, job_id, 1)
        return bool(reported) and _saved(context, job_id) > reported[0] + 20

    with _attempt_until(context, job_id, past_what_a_start_from_nothing_reports_first):
        _kill_trainer(context)
    saved = _saved(context, job_id)
    with _attempt_until(context, job_id, lambda: bool(_reported(world, job_id, 2))):
        context.stopping.set()
    assert _reported(world, job_id, 1)[0] < saved < _reported(world, job_id, 2)[0]
    outcomes = [attempt["outcome"] for attempt in world.job(job_id)["attempts"]]
    assert outcomes == ["crashed", "released"]


def test_a_killed_training_ends_with_the_weights_of_one_that_was_not(
    world: World, context: Context
) -> None:
    training = {"epochs": 200, **ONE_STEP}
    undisturbed, job_id = world.train(**training), world.train(**training)
    run_job(context, undisturbed)
    with _attempt_until(context, job_id, lambda: _saved(context, job_id) > 5):
        _kill_trainer(context)
    run_job(context, job_id)
    jobs = [world.job(one) for one in (undisturbed, job_id)]
    assert [job["status"] for job in jobs] == ["succeeded", "succeeded"]
    assert [len(job["attempts"]) for job in jobs] == [1, 2]
    assert [job["result"]["cost"]["steps"] for job in jobs] == [200, 200]
    second, first = world.versions()
    assert first["version_id"] != second["version_id"]
    assert first["weights_sha256"] == second["weights_sha256"]
