"""Jobs from claim to record, with the real trainer."""

import errno
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file, save_file
from sqlalchemy import text

from app.ledger.tables import TreeHead
from tests.worker.worker_world import World, new_world
from worker import publishing
from worker.context import Context
from worker.pipeline import run_job

LONG = {"least_steps": 2, "epochs": 2000}


def _run(world: World, context: Context, job_id: str) -> dict[str, Any]:
    run_job(context, job_id)
    return world.job(job_id)


def _job_of(request: dict[str, Any]) -> str:
    return str(request["jobs"][0]["job_id"])


def _checkpoints(context: Context) -> int:
    kept = context.settings.data_dir / "storage" / "checkpoints"
    return len(list(kept.iterdir())) if kept.exists() else 0


def _leaves(context: Context) -> list[str]:
    with context.database.engine.connect() as connection:
        query = text("SELECT kind FROM ledger_leaves ORDER BY leaf_index")
        return list(connection.execute(query).scalars())


@contextmanager
def _running(context: Context, job_id: str) -> Iterator[threading.Thread]:
    """Work on a job in a thread, from the moment at which its trainer reports progress."""
    thread = threading.Thread(target=run_job, args=(context, job_id))
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while not _progress(context, job_id) and time.monotonic() < deadline:
            time.sleep(0.05)
        yield thread
    finally:
        context.stopping.set()
        thread.join(60)
    assert not thread.is_alive()


def _progress(context: Context, job_id: str) -> Any:
    with context.database.engine.connect() as connection:
        query = text("SELECT progress ->> 'phase' FROM jobs WHERE job_id = :job_id")
        return connection.execute(query, {"job_id": job_id}).scalar()


def _trainers(context: Context) -> list[psutil.Process]:
    work = str(context.settings.work)
    children = psutil.Process().children(recursive=True)
    return [child for child in children if any(part.startswith(work) for part in child.cmdline())]


def test_a_training_and_two_deletions_add_up_to_versions_audits_and_certificates(
    world: World, context: Context
) -> None:
    trained = _run(world, context, world.train())
    assert trained["status"] == "succeeded", trained["error"]
    first = world.forget("digits-00000", "digits-00001")
    assert _run(world, context, _job_of(first))["status"] == "succeeded"
    second = world.forget("digits-00001", "digits-00002")
    job = _run(world, context, _job_of(second))
    assert job["status"] == "succeeded", job["error"]
    assert [version["number"] for version in world.versions()] == [3, 2, 1]
    assert {version["lineage_id"] for version in world.versions()} == {trained["lineage_id"]}
    assert world.request(second["request_id"])["status"] == "completed"
    audit = world.get(f"/v1/audit/versions/{job['output_version_id']}")
    assert "forgotten" in str(audit)
    assert _leaves(context) == [
        "dataset_registered",
        *("job_started", "version_registered", "audit_recorded"),
        *("request_received", "job_started", "version_produced", "audit_recorded"),
        "request_completed",
        *("request_received", "job_started", "version_produced", "audit_recorded"),
        "request_completed",
    ]
    assert not list(context.settings.work.glob("job_*"))


def test_an_uploaded_version_is_audited_as_it_is(
    world: World, context: Context, original: Path
) -> None:
    version_id = world.upload(original, evaluate=True)
    job_id = world.get("/v1/jobs")["items"][0]["job_id"]
    job = _run(world, context, job_id)
    assert job["status"] == "succeeded", job["error"]
    assert job["output_version_id"] == version_id
    assert len(world.versions()) == 1
    assert _leaves(context)[-1] == "audit_recorded"


def test_a_job_whose_pairs_were_forgotten_meanwhile_ends_without_a_run(
    world: World, context: Context, original: Path
) -> None:
    world.upload(original)
    first = world.forget("digits-00000")
    other = world.forget("digits-00000", params={**LONG, "epochs": 3})
    assert _job_of(first) != _job_of(other)
    done = _run(world, context, _job_of(first))
    idle = _run(world, context, _job_of(other))
    assert idle["status"] == "succeeded"
    assert idle["output_version_id"] == done["output_version_id"]
    assert world.request(other["request_id"])["status"] == "completed"
    assert len(world.versions()) == 2


def test_an_unlearning_that_changes_no_weight_makes_no_version_and_its_request_needs_attention(
    world: World, context: Context, original: Path
) -> None:
    world.upload(original)
    # So small a step is lost in the rounding of every weight.
    params = {"epochs": 1, "learning_rate": 1e-30}
    request = world.forget("digits-00000", method="finetune", params=params)
    job = _run(world, context, _job_of(request))
    assert (job["status"], job["error"]["code"]) == ("failed", "nothing_changed")
    assert "left every weight as it was" in job["error"]["message"]
    asked = world.request(request["request_id"])
    assert asked["status"] == "needs_attention"
    assert "objective decouple" in asked["status_reason"]
    assert len(world.versions()) == 1
    assert _checkpoints(context) == 1
    assert "version_produced" not in _leaves(context)
    again = world.forget("digits-00000")
    assert _run(world, context, _job_of(again))["status"] == "succeeded"


@pytest.fixture
def broken(digits: Path, tmp_path: Path) -> Path:
    """Give a copy of the digits in which one training image is cut short."""
    folder = tmp_path / "broken"
    shutil.copytree(digits, folder)
    with (
        zipfile.ZipFile(digits / "images.zip") as whole,
        zipfile.ZipFile(folder / "images.zip", "w") as copy,
    ):
        for name in whole.namelist():
            content = whole.read(name)
            copy.writestr(name, content[:40] if name == "train/00003.png" else content)
    return folder


def test_a_broken_image_fails_the_job_by_name_and_nothing_is_published(
    client: Any, context: Context, broken: Path
) -> None:
    world = new_world(client, broken)
    job = _run(world, context, world.train())
    assert job["status"] == "failed"
    assert job["error"]["code"] == "data_error"
    assert "00003.png" in job["error"]["message"]
    assert len(job["attempts"]) == 1
    assert world.versions() == []
    assert _checkpoints(context) == 0
    assert not list(context.settings.work.glob("job_*"))


@pytest.fixture
def diverged(original: Path, tmp_path: Path) -> Path:
    """Give a copy of the checkpoint with weights so large that their loss is not finite."""
    return _filled(original, tmp_path, 1e38)


def _filled(original: Path, tmp_path: Path, value: float) -> Path:
    folder = tmp_path / "diverged"
    shutil.copytree(original, folder, ignore=shutil.ignore_patterns("SHA256SUMS"))
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: np.full_like(one, value) for name, one in weights.items()},
        folder / "model.safetensors",
    )
    return folder


def test_a_loss_that_is_not_finite_fails_the_job_and_the_request_needs_attention(
    world: World, context: Context, diverged: Path
) -> None:
    world.upload(diverged)
    request = world.forget("digits-00000")
    job = _run(world, context, _job_of(request))
    assert job["error"]["code"] == "non_finite_loss"
    stuck = world.request(request["request_id"])
    assert stuck["status"] == "needs_attention"
    assert job["error"]["message"] in stuck["status_reason"]
    assert len(world.versions()) == 1
    assert _checkpoints(context) == 1


def test_a_checkpoint_whose_weights_are_no_numbers_fails_the_job(
    world: World, context: Context, original: Path, tmp_path: Path
) -> None:
    world.upload(_filled(original, tmp_path, float("nan")))
    request = world.forget("digits-00000")
    job = _run(world, context, _job_of(request))
    assert job["error"]["code"] == "checkpoint_error"
    assert "has NaN or infinity" in job["error"]["message"]
    assert len(job["attempts"]) == 1


def test_a_full_storage_fails_the_job_and_its_space_is_freed(
    world: World, context: Context, original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.upload(original)
    request = world.forget("digits-00000")
    copy = shutil.copyfile

    def full(source: Path, target: Path) -> Path:
        copy(source, target)
        if Path(source).name == "tokenizer.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        return target

    monkeypatch.setattr(shutil, "copyfile", full)
    job = _run(world, context, _job_of(request))
    assert job["error"]["code"] == "storage_full"
    stored = context.settings.data_dir / "storage" / "checkpoints"
    files = [path for path in stored.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == {world.versions()[0]["checkpoint_sha256"]}
    assert not list(context.settings.work.glob("job_*"))
    assert world.request(request["request_id"])["status"] == "needs_attention"


def test_a_cancelled_job_frees_its_trainer_within_seconds(
    world: World, context: Context, original: Path
) -> None:
    world.upload(original)
    job_id = _job_of(world.forget("digits-00000", params=LONG))
    with _running(context, job_id) as thread:
        assert _trainers(context)
        world.post(f"/v1/jobs/{job_id}/cancel", {})
        thread.join(20)
        assert not thread.is_alive()
        assert _trainers(context) == []
    assert world.job(job_id)["status"] == "cancelled"
    assert len(world.versions()) == 1


def test_a_worker_that_is_told_to_end_puts_its_job_back_uncounted(
    world: World, context: Context, original: Path
) -> None:
    world.upload(original)
    job_id = _job_of(world.forget("digits-00000", params=LONG))
    with _running(context, job_id):
        pass
    job = world.job(job_id)
    assert job["status"] == "queued"
    assert [attempt["outcome"] for attempt in job["attempts"]] == ["released"]
    assert _trainers(context) == []
    with context.database.engine.connect() as connection:
        told = connection.execute(text("SELECT dispatched_time FROM jobs")).scalar_one()
    assert told is None  # the next worker announces it at once; this one might take its own message
    run_job(context, job_id)
    assert world.job(job_id)["status"] == "queued"  # a stopping worker takes nothing


def test_a_worker_that_lost_its_lease_stops_and_writes_nothing(
    world: World, context: Context, original: Path
) -> None:
    world.upload(original)
    job_id = _job_of(world.forget("digits-00000", params=LONG))
    with _running(context, job_id) as thread:
        with context.database.transaction() as session:
            session.execute(text("UPDATE jobs SET fencing_token = fencing_token + 1"))
        thread.join(20)
        assert not thread.is_alive()
        assert _trainers(context) == []
    assert world.job(job_id)["status"] == "running"
    assert len(world.versions()) == 1


def test_a_trainer_that_keeps_dying_fails_the_job_with_the_reason(
    world: World, context: Context, original: Path
) -> None:
    world.upload(original)
    context.settings.max_attempts = 1
    request = world.forget("digits-00000", params=LONG)
    with _running(context, _job_of(request)) as thread:
        for trainer in _trainers(context):
            trainer.kill()
        thread.join(20)
    job = world.job(_job_of(request))
    assert job["status"] == "failed"
    assert "SIGKILL" in job["error"]["message"]
    assert world.request(request["request_id"])["status"] == "needs_attention"


def test_a_job_whose_trainer_crashed_pauses_before_its_next_attempt(
    world: World, context: Context, original: Path
) -> None:
    world.upload(original)
    context.settings.retry_seconds = 600
    request = world.forget("digits-00000", params=LONG)
    job_id = _job_of(request)
    with _running(context, job_id) as thread:
        for trainer in _trainers(context):
            trainer.kill()
        thread.join(20)
        assert not thread.is_alive()
        run_job(context, job_id)
        context.reaper.tick()
    job = world.job(job_id)
    assert (job["status"], len(job["attempts"])) == ("queued", 1)
    assert job["retry_time"] is not None
    world.post(f"/v1/jobs/{job_id}/cancel", {})
    assert world.job(job_id)["status"] == "cancelled"
    assert world.request(request["request_id"])["status"] == "needs_attention"


def test_a_log_that_contradicts_itself_ends_the_job_and_nothing_is_published(
    world: World, context: Context, original: Path
) -> None:
    world.upload(original)
    request = world.forget("digits-00000")
    with context.database.transaction() as session:
        for size in range(1, 20):
            note = context.signer.sign(size, bytes(32)).note
            session.add(TreeHead(size=size, root=bytes(32), note=note))
    job = _run(world, context, _job_of(request))
    assert job["error"]["code"] == "ledger_corrupt"
    assert "Compare the database with a backup" in job["error"]["message"]
    assert len(job["attempts"]) == 1
    assert world.request(request["request_id"])["status"] == "needs_attention"
    assert len(world.versions()) == 1
    assert _checkpoints(context) == 1


def test_what_an_ended_job_left_behind_is_swept_away(
    world: World, context: Context, original: Path
) -> None:
    job_id = world.train()
    home = context.settings.work / job_id
    home.mkdir()
    stray = "ab" * 32
    (home / "published").write_text(stray + "\n")
    context.storage.put_directory(original, f"checkpoints/{stray}")
    publishing.sweep(context)
    assert home.exists()
    world.post(f"/v1/jobs/{job_id}/cancel", {})
    publishing.sweep(context)
    assert not home.exists()
    assert _checkpoints(context) == 0


def test_the_worker_never_imports_torch() -> None:
    code = "import sys, worker.celery_app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
