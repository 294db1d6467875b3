"""Disks that are full, read-only or limited: the job says why, and leaves nothing behind."""

import resource
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.core.settings import Settings
from tests.worker.worker_world import World
from worker.context import Context
from worker.pipeline import run_job


@pytest.fixture
def settings(settings: Settings, small_disk: Path) -> Settings:
    """Give settings with storage and work folder on a disk of 1 MiB; state is saved at each step."""
    places = {"storage_url": (small_disk / "storage").as_uri(), "work_dir": small_disk / "work"}
    return settings.model_copy(update={**places, "save_seconds": 0.0})


def _fill(disk: Path, leave: int) -> Path:
    """Leave ``leave`` bytes free; returns the file that takes the rest."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        free = _free(disk) - leave
        file.write(bytes(max(0, free)))
    return ballast


def _free(disk: Path) -> int:
    return psutil.disk_usage(str(disk)).free


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@contextmanager
def _read_only(disk: Path) -> Iterator[None]:
    def remount(how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)

    remount("ro")
    try:
        yield
    finally:
        remount("rw")


def _end(world: World, context: Context, job_id: str) -> dict[str, Any]:
    run_job(context, job_id)
    job = world.job(job_id)
    assert job["status"] == "failed", job
    assert len(job["attempts"]) == 1
    assert world.versions() == []
    return job


def test_a_disk_that_fills_up_in_the_training_ends_the_job_and_is_freed(
    world: World, context: Context, small_disk: Path
) -> None:
    job_id = world.train()
    _fill(small_disk, leave=100_000)
    before = _free(small_disk)
    job = _end(world, context, job_id)
    assert job["error"]["code"] == "storage_full"
    assert "free space" in job["error"]["message"]
    assert _free(small_disk) == before
    assert not list(context.settings.work.glob("job_*"))


def test_a_disk_without_room_for_a_line_ends_the_job_with_the_reason(
    world: World, context: Context, small_disk: Path
) -> None:
    job_id = world.train()
    _fill(small_disk, leave=0)
    assert _end(world, context, job_id)["error"]["code"] == "storage_full"


def test_a_full_storage_takes_no_part_of_a_checkpoint(
    world: World, context: Context, settings: Settings, small_disk: Path, tmp_path: Path
) -> None:
    """The work folder has room here: what fails is the copy of the finished checkpoint."""
    settings.work_dir = tmp_path / "work"
    settings.work_dir.mkdir()
    job_id = world.train()
    kept = _files(small_disk / "storage")
    _fill(small_disk, leave=100_000)
    before = _free(small_disk)
    job = _end(world, context, job_id)
    assert job["error"]["code"] == "storage_full"
    assert "free some space" in job["error"]["message"]
    assert _files(small_disk / "storage") == kept
    assert _free(small_disk) == before
    assert not list(context.settings.work.glob("job_*"))


@pytest.mark.parametrize("elsewhere", [False, True], ids=["work folder too", "storage only"])
def test_a_storage_that_may_not_be_written_ends_the_job_with_what_to_do(
    world: World,
    context: Context,
    settings: Settings,
    small_disk: Path,
    tmp_path: Path,
    *,
    elsewhere: bool,
) -> None:
    if elsewhere:
        settings.work_dir = tmp_path / "work"
        settings.work_dir.mkdir()
    job_id = world.train()
    with _read_only(small_disk):
        job = _end(world, context, job_id)
    assert job["error"]["code"] == "storage_refused"
    assert "Read-only file system" in job["error"]["message"]
    assert "Give the service the right" in job["error"]["message"]


def test_a_limit_on_the_size_of_files_ends_the_job_with_the_reason(
    world: World, context: Context, settings: Settings, tmp_path: Path
) -> None:
    settings.work_dir = tmp_path / "work"
    settings.work_dir.mkdir()
    job_id = world.train(epochs=10_000)
    thread = threading.Thread(target=run_job, args=(context, job_id))
    thread.start()
    try:
        deadline = time.monotonic() + 120
        while not (states := list(settings.work_dir.glob("*/state-*/train.safetensors"))):
            assert time.monotonic() < deadline, world.job(job_id)
            time.sleep(0.05)
        limit = states[0].stat().st_size // 2
        trainer = next(
            child
            for child in psutil.Process().children(recursive=True)
            if "worker.trainer" in child.cmdline()
        )
        trainer.rlimit(psutil.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        thread.join(60)
        assert not thread.is_alive()
    finally:
        context.stopping.set()
        thread.join(60)
    job = world.job(job_id)
    assert job["error"]["code"] == "file_error"
    assert "File too large" in job["error"]["message"]
    assert len(job["attempts"]) == 1
    assert world.versions() == []
    assert not list(settings.work_dir.glob("job_*"))
