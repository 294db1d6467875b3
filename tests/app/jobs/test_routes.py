"""Jobs over HTTP."""

from datetime import UTC, datetime

from fastapi.testclient import TestClient

from app.jobs import endings, lease
from tests.app.deletions.deletion_rows import Rows


def test_a_job_shows_attempts_progress_and_outcome(client: TestClient, rows: Rows) -> None:
    job_id = rows.training()
    queued = client.get(f"/v1/jobs/{job_id}")
    assert queued.json()["status"] == "queued"
    assert queued.headers["Retry-After"]
    held = rows.claim(job_id)
    assert held is not None
    progress = {"phase": "train", "step": 3, "total": 9, "losses": {"itm": 0.5}, "message": ""}
    with rows.database.transaction() as session:
        lease.renew(session, held, progress)
    running = client.get(f"/v1/jobs/{job_id}").json()
    assert running["progress"] == progress
    assert running["attempts"][0]["worker"] == "test"
    version_id = rows.finish(job_id, held)
    ended = client.get(f"/v1/jobs/{job_id}").json()
    assert ended["status"] == "succeeded"
    assert ended["output_version_id"] == version_id
    assert ended["attempts"][0]["outcome"] == "succeeded"


def test_events_tell_the_history_and_what_came_since(client: TestClient, rows: Rows) -> None:
    job_id = rows.training()
    held = rows.claim(job_id)
    assert held is not None
    first = client.get(f"/v1/jobs/{job_id}/events").json()
    assert [event["data"]["status"] for event in first["items"]] == ["preparing"]
    with rows.database.transaction() as session:
        lease.renew(session, held, {"phase": "train", "losses": {"itm": 0.25}})
    after = first["last_event_id"]
    news = client.get(f"/v1/jobs/{job_id}/events?after={after}").json()["items"]
    assert [event["kind"] for event in news] == ["progress"]
    assert news[0]["data"]["losses"] == {"itm": 0.25}


def test_lists_are_filtered_by_status(client: TestClient, rows: Rows) -> None:
    first, second = rows.training(), rows.training()
    rows.claim(first)
    queued = client.get("/v1/jobs?status=queued").json()["items"]
    assert [job["job_id"] for job in queued] == [second]
    assert len(client.get("/v1/jobs").json()["items"]) == 2


def test_a_queued_job_is_cancelled_at_once_and_only_once(client: TestClient, rows: Rows) -> None:
    job_id = rows.training()
    assert client.post(f"/v1/jobs/{job_id}/cancel").json()["status"] == "cancelled"
    assert rows.claim(job_id) is None
    assert client.post(f"/v1/jobs/{job_id}/cancel").status_code == 409


def test_a_job_shows_when_it_is_tried_again_and_can_be_cancelled_until_then(
    client: TestClient, rows: Rows
) -> None:
    job_id = rows.training()
    held = rows.claim(job_id)
    assert held is not None
    assert client.get(f"/v1/jobs/{job_id}").json()["retry_time"] is None
    with rows.database.transaction() as session:
        job = lease.hold(session, held)
        endings.give_back(session, rows.signer, job, "crashed", "SIGKILL", retry_seconds=600)
    waiting = client.get(f"/v1/jobs/{job_id}").json()
    left = datetime.fromisoformat(waiting["retry_time"]) - datetime.now(UTC)
    assert 590 < left.total_seconds() <= 600
    assert (waiting["status"], waiting["attempts"][0]["outcome"]) == ("queued", "crashed")
    told = client.get(f"/v1/jobs/{job_id}/events").json()["items"][-1]["data"]
    assert told == {"status": "queued", "reason": "SIGKILL", "retry_after_seconds": 600.0}
    ended = client.post(f"/v1/jobs/{job_id}/cancel").json()
    assert (ended["status"], ended["retry_time"]) == ("cancelled", None)


def test_a_running_job_is_marked_for_its_worker(client: TestClient, rows: Rows) -> None:
    job_id = rows.training()
    rows.claim(job_id)
    for _ in range(2):
        answer = client.post(f"/v1/jobs/{job_id}/cancel")
        assert answer.status_code == 202
        assert answer.json()["status"] == "cancelling"


def test_an_unknown_job_is_not_found(client: TestClient) -> None:
    for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel")):
        assert client.request(method, f"/v1/jobs/job_none{path}").status_code == 404
