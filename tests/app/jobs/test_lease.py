"""Claims, leases, fencing: who may write, and what the reaper does."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from app.core.db import Database
from app.jobs import endings, lease
from app.jobs.errors import CancelRequested, LeaseLost
from app.jobs.lease import Lease
from app.jobs.reaper import Reaper
from app.jobs.start import start
from app.jobs.tables import Attempt, Job
from tests.app.deletions.deletion_rows import Rows

SHORT = 0.3


def _claim(rows: Rows, job_id: str, worker: str = "one", seconds: float = 60) -> Lease | None:
    with rows.database.transaction() as session:
        return start(session, rows.signer, job_id, worker, seconds=seconds, max_attempts=3)


def _held(rows: Rows, job_id: str, seconds: float = 60) -> Lease:
    held = _claim(rows, job_id, seconds=seconds)
    assert held is not None
    return held


def _job(rows: Rows, job_id: str) -> Job:
    with rows.database.transaction() as session:
        return session.get_one(Job, job_id)


def _expires(rows: Rows, job_id: str) -> datetime:
    expires = _job(rows, job_id).lease_expires_time
    assert expires is not None
    return expires


@pytest.fixture
def reaper(rows: Rows) -> Iterator[Reaper]:
    return _reaper(rows, retry_seconds=0)


def _reaper(rows: Rows, retry_seconds: float) -> Reaper:
    times = {"redispatch_seconds": 60.0, "retry_seconds": retry_seconds}
    return Reaper(rows.database, rows.queue, rows.signer, **times)


def test_a_job_is_claimed_once(rows: Rows) -> None:
    job_id = rows.training()
    assert _claim(rows, job_id) is not None
    assert _claim(rows, job_id, "two") is None


def test_of_many_workers_one_gets_the_job(rows: Rows) -> None:
    job_id = rows.training()
    claims: list[Lease | None] = []
    threads = [
        threading.Thread(target=lambda n=n: claims.append(_claim(rows, job_id, f"worker {n}")))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(claims) == 8
    assert sum(claim is not None for claim in claims) == 1
    assert rows.leaves(job_id) == ["job_started"]


def test_a_second_worker_cannot_record_a_result(rows: Rows, reaper: Reaper) -> None:
    job_id = rows.training()
    slow = _held(rows, job_id, seconds=SHORT)
    time.sleep(SHORT * 1.5)
    reaper.tick()
    fast = _claim(rows, job_id, "two")
    assert fast is not None
    with pytest.raises(LeaseLost), rows.database.transaction() as session:
        lease.hold(session, slow)
    with rows.database.transaction() as session:
        assert lease.hold(session, fast).worker == "two"


def test_a_lease_that_ran_out_gives_no_right_even_if_nobody_took_over(rows: Rows) -> None:
    held = _held(rows, rows.training(), seconds=SHORT)
    time.sleep(SHORT * 1.5)
    with pytest.raises(LeaseLost), rows.database.transaction() as session:
        lease.hold(session, held)
    with pytest.raises(LeaseLost), rows.database.transaction() as session:
        lease.renew(session, held)


def test_a_renewed_lease_lives_on_and_writes_progress(rows: Rows, reaper: Reaper) -> None:
    job_id = rows.training()
    held = _held(rows, job_id)
    for step in range(4):
        before = _expires(rows, job_id)
        with rows.database.transaction() as session:
            lease.renew(session, held, {"phase": "train", "step": step})
        assert _expires(rows, job_id) > before
        reaper.tick()
    assert _job(rows, job_id).status == "preparing"
    assert _job(rows, job_id).progress == {"phase": "train", "step": 3}


def test_a_silent_workers_job_is_tried_again_and_fails_after_the_last_attempt(
    rows: Rows, reaper: Reaper
) -> None:
    job_id = rows.training()
    for attempt in (1, 2, 3):
        _held(rows, job_id, seconds=0.05)
        time.sleep(0.1)
        reaper.tick()
        job = _job(rows, job_id)
        assert job.attempts == attempt
        assert job.status == ("queued" if attempt < 3 else "failed")
    assert job.error is not None
    assert job.error["code"] == "worker_lost"
    with rows.database.transaction() as session:
        outcomes = [session.get_one(Attempt, (job_id, n)).outcome for n in (1, 2, 3)]
    assert outcomes == ["worker_lost", "worker_lost", "failed"]
    assert rows.leaves(job_id) == ["job_started"]


def test_two_reapers_reap_a_job_once(rows: Rows, reaper: Reaper) -> None:
    job_id = rows.training()
    _held(rows, job_id, seconds=0.05)
    time.sleep(0.1)
    threads = [threading.Thread(target=reaper.tick) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert _job(rows, job_id).status == "queued"
    assert _job(rows, job_id).attempts == 1


def test_a_job_that_is_put_back_keeps_its_attempts(rows: Rows) -> None:
    job_id = rows.training()
    held = _held(rows, job_id)
    with rows.database.transaction() as session:
        endings.put_back(session, lease.hold(session, held), "stopped")
    job = _job(rows, job_id)
    assert (job.attempts, job.status, job.retry_time) == (0, "queued", None)
    assert _claim(rows, job_id, "two") is not None


def _break_off(rows: Rows, held: Lease, retry_seconds: float) -> None:
    with rows.database.transaction() as session:
        job = lease.hold(session, held)
        endings.give_back(
            session, rows.signer, job, "crashed", "SIGKILL", retry_seconds=retry_seconds
        )


def test_a_job_whose_attempt_broke_off_is_neither_announced_nor_claimed_until_its_pause_is_over(
    rows: Rows, database: Database
) -> None:
    job_id = rows.training()
    _break_off(rows, _held(rows, job_id), retry_seconds=1.0)
    with database.transaction() as session:
        assert lease.due(session, 0.0) == []
    assert _claim(rows, job_id, "two") is None  # a message of before may come now
    time.sleep(1.1)
    with database.transaction() as session:
        assert lease.due(session, 0.0) == [job_id]
    assert _claim(rows, job_id, "two") is not None
    assert _job(rows, job_id).retry_time is None


def _pause(rows: Rows, job_id: str) -> float:
    """Return the seconds between the last event of a job and its next attempt."""
    with rows.database.transaction() as session:
        query = (
            "SELECT extract(epoch FROM retry_time - clock_timestamp()) FROM jobs WHERE job_id = :id"
        )
        return float(session.execute(text(query), {"id": job_id}).scalar_one())


@pytest.mark.parametrize(
    ("retry_seconds", "expected"), [(40.0, [40, 80, 160]), (3600.0, [3600, 3600, 3600])]
)
def test_the_pause_doubles_with_each_attempt_up_to_an_hour(
    rows: Rows, retry_seconds: float, expected: list[int]
) -> None:
    job_id = rows.training()
    for seconds in expected:
        with rows.database.transaction() as session:
            session.execute(text("UPDATE jobs SET retry_time = NULL"))
            held = start(session, rows.signer, job_id, "one", seconds=60, max_attempts=9)
        assert held is not None
        _break_off(rows, held, retry_seconds)
        assert _pause(rows, job_id) == pytest.approx(seconds, abs=5)


def test_a_job_whose_worker_went_silent_pauses_too(rows: Rows) -> None:
    job_id = rows.training()
    _held(rows, job_id, seconds=0.05)
    time.sleep(0.1)
    _reaper(rows, retry_seconds=40).tick()
    assert _job(rows, job_id).status == "queued"
    assert _pause(rows, job_id) == pytest.approx(40, abs=5)


def _of_one_lineage(rows: Rows, *kinds: str) -> list[str]:
    """Return queued jobs of these kinds, oldest first, all of one lineage."""
    job_ids = []
    for kind in kinds:
        job_ids.append(rows.training())
        time.sleep(0.002)  # ids of one millisecond have no order
        with rows.database.transaction() as session:
            job = session.get_one(Job, job_ids[-1])
            job.kind, job.lineage_id = kind, "ver_shared"
    return job_ids


def _due(rows: Rows) -> list[str]:
    with rows.database.transaction() as session:
        return lease.due(session, 0.0)


def test_an_unlearning_that_pauses_is_not_overtaken_by_a_later_one(rows: Rows) -> None:
    first, second = _of_one_lineage(rows, "unlearn", "unlearn")
    _break_off(rows, _held(rows, first), retry_seconds=60)
    assert _claim(rows, second) is None  # a message of before may come now
    assert _due(rows) == []
    with rows.database.transaction() as session:
        session.get_one(Job, first).retry_time = datetime.now(UTC)
    assert _claim(rows, second) is None
    assert _due(rows) == [first]
    held = _held(rows, first)
    assert _claim(rows, second) is None
    with rows.database.transaction() as session:
        endings.fail(session, rows.signer, lease.hold(session, held), "data_error", "broken")
        assert lease.due(session, 60.0) == [second]  # at once
    assert _claim(rows, second) is not None


def test_unlearnings_of_a_lineage_are_claimed_in_the_order_in_which_they_were_queued(
    rows: Rows,
) -> None:
    first, second = _of_one_lineage(rows, "unlearn", "unlearn")
    assert _claim(rows, second) is None
    held = _held(rows, first)
    with rows.database.transaction() as session:
        endings.put_back(session, lease.hold(session, held), "its worker was told to end")
    assert _claim(rows, second) is None
    assert _due(rows) == [first]


def test_an_unlearning_waits_for_no_other_lineage_and_for_no_later_job(rows: Rows) -> None:
    first, second = _of_one_lineage(rows, "unlearn", "unlearn")
    with rows.database.transaction() as session:
        session.get_one(Job, first).lineage_id = "ver_other"
    _break_off(rows, _held(rows, first), retry_seconds=60)
    assert _claim(rows, second) is not None


@pytest.mark.parametrize("kinds", [("evaluate", "unlearn"), ("unlearn", "evaluate")])
def test_an_audit_that_pauses_keeps_no_unlearning_waiting_and_waits_for_none(
    rows: Rows, kinds: tuple[str, str]
) -> None:
    first, second = _of_one_lineage(rows, *kinds)
    _break_off(rows, _held(rows, first), retry_seconds=60)
    held = _held(rows, second)
    with rows.database.transaction() as session:  # its end announces what waits for the lineage
        endings.fail(session, rows.signer, lease.hold(session, held), "data_error", "broken")
        assert lease.due(session, 0.0) == []
    assert _claim(rows, first) is None


def test_an_unlearning_whose_predecessor_was_cancelled_is_due(rows: Rows) -> None:
    first, second = _of_one_lineage(rows, "unlearn", "unlearn")
    _break_off(rows, _held(rows, first), retry_seconds=60)
    assert _due(rows) == []
    with rows.database.transaction() as session:
        job = session.get_one(Job, first, with_for_update={"key_share": True})
        endings.cancel(session, rows.signer, job, "cancelled by request")
    assert _due(rows) == [second]
    assert _claim(rows, second) is not None


def test_a_job_to_be_cancelled_is_held_by_nobody_but_its_canceller(rows: Rows) -> None:
    job_id = rows.training()
    held = _held(rows, job_id)
    with rows.database.transaction() as session:
        job = session.get_one(Job, job_id)
        job.cancel_requested, job.status = True, "cancelling"
    with rows.database.transaction() as session:
        assert lease.renew(session, held) is True
    with pytest.raises(CancelRequested), rows.database.transaction() as session:
        lease.move(session, held, "running")
    with rows.database.transaction() as session:
        assert lease.hold(session, held, even_if_cancelled=True).job_id == job_id


def test_what_was_never_announced_is_announced_and_then_rests(
    rows: Rows, database: Database
) -> None:
    job_id = rows.training()

    def due(seconds: float) -> list[str]:
        with database.transaction() as session:
            return lease.due(session, seconds)

    assert due(60) == [job_id]
    assert due(60) == []
    time.sleep(0.1)
    assert due(0.05) == [job_id]
    time.sleep(0.06)
    assert due(0.05) == []  # the pause doubles
    _held(rows, job_id)
    assert due(0.0) == []


def test_ends_of_two_jobs_of_a_lineage_do_not_wait_for_each_other(rows: Rows) -> None:
    rows.version()
    jobs = [rows.training(), rows.training()]
    with rows.database.transaction() as session:
        session.execute(text("UPDATE jobs SET kind = 'unlearn', lineage_id = 'ver_shared'"))
    with rows.database.transaction() as first, rows.database.transaction() as second:
        for session, job_id in zip((first, second), jobs, strict=True):
            session.execute(text("SET LOCAL lock_timeout = '2s'"))
            session.get_one(Job, job_id, with_for_update={"key_share": True})
        for session, job_id in zip((first, second), jobs, strict=True):
            job = session.get_one(Job, job_id)
            endings.cancel(session, rows.signer, job, "cancelled by request")
    assert {_job(rows, job_id).status for job_id in jobs} == {"cancelled"}
