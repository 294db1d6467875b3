"""How deletion requests live with jobs: completion, failure, repetition, withdrawal, training."""

from collections.abc import Callable
from typing import Any

from fastapi.testclient import TestClient
from httpx import Response

from app.deletions import lineage, methods
from app.jobs import endings
from app.jobs.lease import hold
from app.jobs.tables import Job
from app.ledger.log import leaves_about
from app.ledger.verify import verify_certificate
from tests.app.deletions.deletion_rows import Rows

Post = Callable[..., Response]
Read = Callable[[str], dict[str, Any]]


def _job_of(request: dict[str, Any]) -> str:
    return str(request["jobs"][0]["job_id"])


def _certificate(client: TestClient, request_id: str) -> dict[str, Any]:
    answer = client.get(f"/v1/audit/requests/{request_id}/certificate")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_a_request_completes_with_its_last_job(post: Post, read: Read, rows: Rows) -> None:
    rows.version()
    rows.version()
    request = post(0).json()
    first, second = (job["job_id"] for job in request["jobs"])
    lease = rows.claim(first)
    assert read(request["request_id"])["status"] == "in_progress"
    rows.finish(first, lease)
    assert read(request["request_id"])["status"] == "in_progress"
    rows.finish(second)
    done = read(request["request_id"])
    assert done["status"] == "completed"
    assert done["completed_time"] is not None
    assert all(job["output_version_id"] for job in done["jobs"])


def test_the_certificate_of_a_completed_request_verifies(
    client: TestClient, post: Post, rows: Rows
) -> None:
    rows.version()
    request = post(0).json()
    rows.finish(_job_of(request))
    key = client.get("/v1/ledger/public-key").text
    report = verify_certificate(_certificate(client, request["request_id"]), key)
    assert report.ok, report


def test_jobs_of_a_lineage_run_one_at_a_time_and_add_up(post: Post, rows: Rows) -> None:
    first_version = rows.version()
    first = _job_of(post(0).json())
    lease = rows.claim(first)
    second = _job_of(post(1).json())
    assert rows.claim(second) is None
    second_version = rows.finish(first, lease)
    assert rows.claim(second) is not None
    with rows.database.transaction() as session:
        job = session.get_one(Job, second)
        assert job.input_version_id == second_version != first_version


def test_a_later_job_is_told_what_its_lineage_forgot(post: Post, rows: Rows) -> None:
    rows.version()
    first = post(0, 1).json()
    rows.finish(_job_of(first))
    second = post(1, 2).json()
    assert second["already_forgotten_count"] == 1
    with rows.database.transaction() as session:
        new = lineage.to_forget(session, _job_of(second), methods.by_scope())
        before = lineage.forgotten_before(session, second["jobs"][0]["lineage_id"])
    assert new == {second["request_id"]: ["train-2"]}
    assert before == {first["request_id"]: ["train-0", "train-1"]}


def test_pairs_that_were_all_forgotten_complete_with_the_earlier_certificate(
    client: TestClient, post: Post, rows: Rows
) -> None:
    rows.version()
    first = post(0, 1).json()
    rows.finish(_job_of(first))
    again = post(1).json()
    assert again["status"] == "completed"
    assert again["already_forgotten_count"] == 1
    assert again["met_by_request_id"] == first["request_id"]
    earlier = _certificate(client, first["request_id"])["dsseEnvelope"]
    assert _certificate(client, again["request_id"])["dsseEnvelope"] == earlier
    with rows.database.transaction() as session:
        wanted = ["request_received", "request_completed"]
        leaves = leaves_about(session, [again["request_id"]], wanted)
    assert [leaf.kind for leaf in leaves] == wanted


def test_a_certificate_holds_for_another_request_only_with_its_lineages_and_its_scope(
    post: Post, rows: Rows
) -> None:
    one, other = rows.version(), rows.version()
    for version_id in (one, other):
        rows.finish(_job_of(post(0, versions=[version_id]).json()))
    wider = post(0, versions=[one], method="retrain", scope="full").json()
    rows.finish(_job_of(wider))
    assert post(0).json()["met_by_request_id"] is None  # each of them was met on one lineage
    again = post(0, versions=[one], method="retrain", scope="full").json()
    assert again["met_by_request_id"] == wider["request_id"]


def test_pairs_forgotten_by_several_requests_complete_with_a_certificate_of_their_own(
    client: TestClient, post: Post, rows: Rows
) -> None:
    rows.version()
    for number in (0, 1):
        rows.finish(_job_of(post(number).json()))
    both = post(0, 1).json()
    assert both["status"] == "completed"
    assert both["met_by_request_id"] is None
    assert _certificate(client, both["request_id"])


def test_a_wider_scope_is_not_met_by_a_narrower_method(post: Post, rows: Rows) -> None:
    rows.version()
    rows.finish(_job_of(post(0).json()))
    wider = post(0, method="retrain", scope="full").json()
    assert wider["status"] == "pending"
    with rows.database.transaction() as session:
        again = lineage.to_forget(session, _job_of(wider), methods.by_scope())
    assert again == {wider["request_id"]: ["train-0"]}


def test_a_failed_job_calls_for_attention_and_can_be_tried_again(
    client: TestClient, post: Post, read: Read, rows: Rows
) -> None:
    rows.version()
    request = post(0).json()
    place = f"/v1/deletion-requests/{request['request_id']}"
    assert client.post(f"{place}/retry").status_code == 409
    rows.fail(_job_of(request))
    stuck = read(request["request_id"])
    assert stuck["status"] == "needs_attention"
    assert "a.png is broken" in stuck["status_reason"]
    assert "Retry-After" not in client.get(place).headers  # a person has to act
    again = client.post(f"{place}/retry").json()
    assert again["status"] == "pending"
    rows.finish(again["jobs"][-1]["job_id"])
    assert read(request["request_id"])["status"] == "completed"


def test_a_cancelled_job_calls_for_attention(
    client: TestClient, post: Post, read: Read, rows: Rows
) -> None:
    rows.version()
    request = post(0).json()
    assert client.post(f"/v1/jobs/{_job_of(request)}/cancel").json()["status"] == "cancelled"
    assert read(request["request_id"])["status"] == "needs_attention"


def test_a_withdrawn_request_takes_its_job_along(
    client: TestClient, post: Post, read: Read, rows: Rows
) -> None:
    rows.version()
    request = post(0).json()
    place = f"/v1/deletion-requests/{request['request_id']}"
    assert client.delete(place).status_code == 204
    assert read(request["request_id"])["status"] == "cancelled"
    assert client.get(f"/v1/jobs/{_job_of(request)}").json()["status"] == "cancelled"
    assert rows.leaves(request["request_id"])[-1] == "request_withdrawn"
    assert client.delete(place).status_code == 409


def test_a_withdrawn_request_leaves_a_job_that_others_need(
    client: TestClient, post: Post, read: Read, rows: Rows
) -> None:
    rows.version()
    first, second = post(0).json(), post(1).json()
    client.delete(f"/v1/deletion-requests/{first['request_id']}")
    with rows.database.transaction() as session:
        left = lineage.to_forget(session, _job_of(second), methods.by_scope())
    assert left == {second["request_id"]: ["train-1"]}
    rows.finish(_job_of(second))
    assert read(second["request_id"])["status"] == "completed"
    assert read(first["request_id"])["status"] == "cancelled"


def test_a_completed_request_cannot_be_withdrawn(
    client: TestClient, post: Post, rows: Rows
) -> None:
    request_id = post(0).json()["request_id"]
    assert client.delete(f"/v1/deletion-requests/{request_id}").status_code == 409


def test_a_training_that_starts_later_leaves_the_pairs_out(post: Post, rows: Rows) -> None:
    request = post(0, 1).json()
    job_id = rows.training()
    rows.claim(job_id)
    with rows.database.transaction() as session:
        assert lineage.left_out(session, job_id) == {request["request_id"]: ["train-0", "train-1"]}


def test_a_lineage_that_left_the_pairs_out_has_nothing_to_forget(post: Post, rows: Rows) -> None:
    post(0)
    rows.finish(rows.training())
    assert post(0).json()["status"] == "completed"
    assert post(1).json()["status"] == "pending"


def test_a_queued_training_will_leave_the_pairs_out_so_nothing_is_waited_for(
    post: Post, rows: Rows
) -> None:
    rows.training()
    assert post(0).json()["status"] == "completed"


def test_a_request_waits_for_a_running_training_and_its_version_is_unlearned(
    post: Post, read: Read, rows: Rows
) -> None:
    training = rows.training()
    lease = rows.claim(training)
    request = post(0).json()
    assert request["status"] == "pending"
    assert [job["relation"] for job in request["jobs"]] == ["awaits"]
    rows.finish(training, lease)
    waiting = read(request["request_id"])
    assert waiting["status"] == "pending"
    assert [job["relation"] for job in waiting["jobs"]] == ["awaits", "forget"]
    rows.finish(waiting["jobs"][1]["job_id"])
    assert read(request["request_id"])["status"] == "completed"


def test_a_request_does_not_wait_for_a_training_that_failed(
    post: Post, read: Read, rows: Rows
) -> None:
    training = rows.training()
    lease = rows.claim(training)
    request = post(0).json()
    assert lease is not None
    with rows.database.transaction() as session:
        endings.fail(session, rows.signer, hold(session, lease), "data_error", "broken")
    assert read(request["request_id"])["status"] == "completed"


def test_an_unknown_request_is_not_found(client: TestClient) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/retry")):
        answer = client.request(method, f"/v1/deletion-requests/req_none{path}")
        assert answer.status_code == 404


def test_a_request_that_did_not_change_is_not_sent_again(
    client: TestClient, post: Post, rows: Rows
) -> None:
    rows.version()
    place = post(0).headers["Location"]
    etag = client.get(place).headers["ETag"]
    assert client.get(place, headers={"If-None-Match": etag}).status_code == 304


def test_the_right_scope_is_needed(app: Any, rows: Rows, make_token: Callable[..., str]) -> None:
    headers = {"Authorization": f"Bearer {make_token('deletions:read')}"}
    with TestClient(app, headers=headers) as reader:
        assert reader.get("/v1/deletion-requests").status_code == 200
        body = {"dataset_id": rows.dataset_id, "targets": {"pair_ids": ["train-0"]}}
        assert reader.post("/v1/deletion-requests", json=body).status_code == 403
