"""A request that waits for a training whose worker is lost: the next attempt leaves its pairs out."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx import Response
from sqlalchemy import text

from app.deletions import lineage
from app.jobs import endings
from app.jobs.lease import Lease, hold
from app.jobs.reaper import Reaper
from app.ledger.verify import verify_certificate
from tests.app.deletions.deletion_rows import Rows

Post = Callable[..., Response]
Read = Callable[[str], dict[str, Any]]


@pytest.fixture
def reaper(rows: Rows) -> Reaper:
    """Give a worker's reaper."""
    return Reaper(rows.database, rows.queue, rows.signer, redispatch_seconds=60, retry_seconds=0)


def _lose(rows: Rows, lease: Lease | None) -> None:
    """End an attempt whose worker was killed."""
    assert lease is not None
    with rows.database.transaction() as session:
        job = hold(session, lease)
        endings.give_back(session, rows.signer, job, "worker_lost", "killed", retry_seconds=0)


def _reclaimed(post: Post, rows: Rows) -> tuple[str, str, Lease]:
    """File a request while a training runs, and have that claimed again: request, job, lease."""
    training = rows.training()
    first = rows.claim(training)
    request = post(0).json()
    assert [job["relation"] for job in request["jobs"]] == ["awaits"]
    _lose(rows, first)
    lease = rows.claim(training)
    assert lease is not None
    return request["request_id"], training, lease


def _succeed(rows: Rows, training: str, lease: Lease) -> None:
    rows.finish(training, lease)


def _fail(rows: Rows, training: str, lease: Lease) -> None:
    with rows.database.transaction() as session:
        endings.fail(session, rows.signer, hold(session, lease), "data_error", "a.png is broken")


def _cancel(rows: Rows, training: str, lease: Lease) -> None:
    with rows.database.transaction() as session:
        endings.cancel(session, rows.signer, hold(session, lease), "cancelled by request")


@pytest.mark.parametrize("end", [_succeed, _fail, _cancel])
def test_a_request_is_completed_when_the_training_is_claimed_again_however_that_ends(
    client: TestClient,
    post: Post,
    read: Read,
    rows: Rows,
    end: Callable[[Rows, str, Lease], None],
) -> None:
    request_id, training, lease = _reclaimed(post, rows)
    with rows.database.transaction() as session:
        assert lineage.left_out(session, training) == {request_id: ["train-0"]}
    done = read(request_id)
    assert (done["status"], done["jobs"]) == ("completed", [])
    end(rows, training, lease)
    assert read(request_id) == done
    answer = client.get(f"/v1/audit/requests/{request_id}/certificate")
    key = client.get("/v1/ledger/public-key").text
    assert verify_certificate(answer.json(), key).ok
    report = client.get(f"/v1/audit/requests/{request_id}/report").json()
    assert report["guarantee"] == "not_needed"
    learned = [] if end is not _succeed else [_version_of(client, training)]
    assert report["never_learned"] == learned


def _version_of(client: TestClient, job_id: str) -> str:
    return str(client.get(f"/v1/jobs/{job_id}").json()["output_version_id"])


def test_a_training_that_is_cancelled_between_two_claims_settles_the_request(
    client: TestClient, post: Post, read: Read, rows: Rows
) -> None:
    training = rows.training()
    lease = rows.claim(training)
    request_id = post(0).json()["request_id"]
    _lose(rows, lease)
    assert read(request_id)["status"] == "pending"
    assert client.post(f"/v1/jobs/{training}/cancel").json()["status"] == "cancelled"
    assert read(request_id)["status"] == "completed"


def test_a_request_with_another_job_still_waits_for_that_one(
    post: Post, read: Read, rows: Rows
) -> None:
    rows.version()
    training = rows.training()
    first = rows.claim(training)
    request = post(0).json()
    forget = next(job["job_id"] for job in request["jobs"] if job["relation"] == "forget")
    _lose(rows, first)
    lease = rows.claim(training)
    waiting = read(request["request_id"])
    assert (waiting["status"], len(waiting["jobs"])) == ("pending", 1)
    rows.finish(training, lease)
    assert read(request["request_id"])["status"] == "pending"
    rows.finish(forget)
    assert read(request["request_id"])["status"] == "completed"


@pytest.mark.parametrize("status", ["pending", "in_progress"])
def test_a_round_of_the_reaper_settles_a_request_that_was_left_behind(
    post: Post, read: Read, rows: Rows, reaper: Reaper, status: str
) -> None:
    rows.version()
    request = post(0).json()
    _leave_behind(rows, request["request_id"], request["jobs"][0]["job_id"], status)
    reaper.tick()
    assert read(request["request_id"])["status"] == "needs_attention"


def _leave_behind(rows: Rows, request_id: str, job_id: str, status: str) -> None:
    """End a job, and have its request know nothing of it, as a bug or a restored row would."""
    rows.fail(job_id)
    query = text(
        "UPDATE deletion_requests SET status = :status, status_reason = NULL WHERE request_id = :id"
    )
    with rows.database.transaction() as session:
        session.execute(query, {"status": status, "id": request_id})


def test_a_round_of_the_reaper_leaves_a_request_with_an_open_job_alone(
    post: Post, read: Read, rows: Rows, reaper: Reaper
) -> None:
    training = rows.training()
    lease = rows.claim(training)
    awaiting = post(0).json()["request_id"]
    rows.version()
    waiting = post(1).json()["request_id"]
    reaper.tick()
    assert read(awaiting)["status"] == "pending"
    assert read(waiting)["status"] == "pending"
    rows.finish(training, lease)


def test_a_round_of_the_reaper_does_not_wait_for_a_training_that_left_the_pairs_out(
    post: Post, read: Read, rows: Rows, reaper: Reaper
) -> None:
    rows.version()
    request = post(0).json()
    training = rows.training()
    lease = rows.claim(training)
    _leave_behind(rows, request["request_id"], request["jobs"][0]["job_id"], "pending")
    reaper.tick()
    assert read(request["request_id"])["status"] == "needs_attention"
    rows.finish(training, lease)


def test_a_training_that_leaves_the_pairs_out_does_not_put_a_request_in_progress(
    post: Post, read: Read, rows: Rows
) -> None:
    rows.version()
    request = post(0).json()
    training = rows.training()
    lease = rows.claim(training)
    waiting = read(request["request_id"])
    assert waiting["status"] == "pending"
    assert [job["relation"] for job in waiting["jobs"]] == ["forget"]
    rows.finish(training, lease)
    assert read(request["request_id"])["status"] == "pending"
    rows.claim(request["jobs"][0]["job_id"])
    assert read(request["request_id"])["status"] == "in_progress"


def test_a_version_that_learned_the_pairs_and_got_no_job_does_not_complete_the_request(
    client: TestClient, post: Post, read: Read, rows: Rows, reaper: Reaper
) -> None:
    training = rows.training()
    lease = rows.claim(training)
    request_id = post(0).json()["request_id"]
    # A method that a later release does not have for this family any more.
    _ask(rows, request_id, "erm_ktp", "fusion")
    rows.finish(training, lease)
    reaper.tick()
    stuck = read(request_id)
    assert stuck["status"] == "needs_attention"
    assert "cannot update the fusion module alone" in stuck["status_reason"]
    _ask(rows, request_id, "multidelete", "all")
    again = client.post(f"/v1/deletion-requests/{request_id}/retry").json()
    assert [job["relation"] for job in again["jobs"]] == ["awaits", "forget"]
    rows.finish(again["jobs"][1]["job_id"])
    assert read(request_id)["status"] == "completed"


def _ask(rows: Rows, request_id: str, method: str, update: str) -> None:
    query = text(
        'UPDATE deletion_requests SET method = :method, "update" = :update WHERE request_id = :id'
    )
    with rows.database.transaction() as session:
        session.execute(query, {"method": method, "update": update, "id": request_id})
