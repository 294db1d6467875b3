"""What a deletion request may ask for, and what is answered."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx import Response
from sqlalchemy import text

from app.core.db import Database
from app.deletions.queries import hold_dataset
from tests.app.deletions.deletion_rows import TRAIN, Rows

Post = Callable[..., Response]
Read = Callable[[str], dict[str, Any]]


def test_a_request_is_accepted_with_one_job_for_each_lineage(post: Post, rows: Rows) -> None:
    lineages = {rows.version(), rows.version()}
    answer = post(0, 1)
    assert answer.status_code == 202
    body = answer.json()
    assert answer.headers["Location"] == f"/v1/deletion-requests/{body['request_id']}"
    assert int(answer.headers["Retry-After"]) > 0
    assert body["status"] == "pending"
    assert body["pair_count"] == 2
    assert {job["lineage_id"] for job in body["jobs"]} == lineages
    assert rows.leaves(body["request_id"]) == ["request_received"]


def test_the_answer_to_the_post_is_what_a_read_gives(post: Post, rows: Rows, read: Read) -> None:
    rows.version()
    body = post(0, reason="consent withdrawn").json()
    assert read(body["request_id"]) == body


def test_the_deadline_is_one_calendar_month_later(post: Post, rows: Rows) -> None:
    body = post(0).json()
    submitted, deadline = (
        datetime.fromisoformat(body[name]).astimezone(UTC)
        for name in ("submitted_time", "deadline")
    )
    month = submitted.month % 12 + 1
    assert deadline.month == month
    assert deadline.time() == submitted.time()


def test_targets_are_united_and_counted_once(client: TestClient, rows: Rows) -> None:
    rows.version()
    targets = {
        "pair_ids": ["train-0", "train-0", "train-5"],
        "item_ids": ["train-item-0"],
        "text_ids": ["train-text-1", "train-text-7"],
    }
    body = {"dataset_id": rows.dataset_id, "targets": targets}
    answer = client.post("/v1/deletion-requests", json=body)
    assert answer.json()["pair_count"] == 4  # 0 and 1 by item, 5, 7


def test_unknown_targets_are_named_and_nothing_is_recorded(client: TestClient, rows: Rows) -> None:
    targets = {
        "pair_ids": ["train-0", *(f"no-{number:02}" for number in range(30))],
        "item_ids": ["train-item-0", "no-item"],
        "text_ids": ["no-text"],
    }
    body = {"dataset_id": rows.dataset_id, "targets": targets}
    answer = client.post("/v1/deletion-requests", json=body)
    assert answer.status_code == 422
    unknown = answer.json()["unknown"]
    assert unknown["pair_ids"] == {"count": 30, "first": [f"no-{n:02}" for n in range(20)]}
    assert unknown["item_ids"] == {"count": 1, "first": ["no-item"]}
    assert unknown["text_ids"] == {"count": 1, "first": ["no-text"]}
    assert client.get("/v1/deletion-requests").json()["items"] == []


def test_a_second_item_of_a_pair_names_the_pair_too(client: TestClient, rows: Rows) -> None:
    with rows.database.transaction() as session:
        change = "UPDATE pairs SET second_item_id = 'other' WHERE pair_id = 'train-3'"
        session.execute(text(change))
    body = {"dataset_id": rows.dataset_id, "targets": {"item_ids": ["other"]}}
    assert client.post("/v1/deletion-requests", json=body).json()["pair_count"] == 1


def test_all_training_pairs_are_refused(post: Post, rows: Rows) -> None:
    rows.version()
    answer = post(*range(TRAIN))
    assert answer.status_code == 422
    assert answer.json()["type"].endswith("whole-training-set")
    assert "At least 2 training pairs" in answer.json()["detail"]
    assert "0 would be" in answer.json()["detail"]


def _told(answer: Response) -> str:
    assert answer.status_code == 422
    assert answer.json()["type"].endswith("whole-training-set")
    return str(answer.json()["detail"])


def test_who_names_all_training_pairs_is_told_which_versions_to_retire(
    client: TestClient, post: Post, rows: Rows
) -> None:
    first = rows.version()
    versions = [rows.version(first, first), rows.version()]
    told = _told(post(*range(TRAIN)))
    places = [f"/v1/models/{rows.model_id}/versions/{one}/retire" for one in versions]
    assert "Name fewer, or retire the versions" in told
    assert all(f"POST {place}" in told for place in places)
    assert first not in told.replace(versions[0], "")
    assert "cancel" not in told
    assert all(client.post(place).status_code == 200 for place in places)
    assert post(*range(TRAIN)).json()["status"] == "completed"


def test_who_names_all_training_pairs_of_a_running_training_is_told_to_cancel_it(
    client: TestClient, post: Post, rows: Rows
) -> None:
    training = rows.training()
    rows.claim(training)
    told = _told(post(*range(TRAIN)))
    assert f"or cancel the training that is learning them now (POST /v1/jobs/{training}/c" in told
    assert "retire" not in told
    version = rows.version()
    told = _told(post(*range(TRAIN)))
    assert "retire the versions that learned them and cancel the training" in told
    assert (version in told, training in told) == (True, True)


def test_who_names_all_training_pairs_for_some_versions_is_told_about_these(
    post: Post, rows: Rows
) -> None:
    chosen, other = rows.version(), rows.version()
    told = _told(post(*range(TRAIN), versions=[chosen]))
    assert (chosen in told, other in told) == (True, False)
    assert told.endswith("Nothing is left to ask of them then.")


def test_who_cannot_name_fewer_is_not_told_to(post: Post, rows: Rows) -> None:
    assert post(*range(TRAIN)).status_code == 202  # nothing had learned them
    rows.version()
    told = _told(post(0))
    assert "Naming fewer does not help: retire the versions" in told


def test_fewer_than_two_remaining_training_pairs_are_refused(post: Post, rows: Rows) -> None:
    rows.version()
    assert post(*range(10)).status_code == 202
    assert post(*range(9, TRAIN)).status_code == 422
    assert "1 would be" in post(*range(9, TRAIN - 1)).json()["detail"]
    assert post(*range(9, TRAIN - 2)).status_code == 202
    again = post(*range(TRAIN - 2))  # takes nothing away from what is left
    assert again.status_code == 202
    assert post(TRAIN - 2).status_code == 422


def test_pairs_of_a_withdrawn_request_count_as_remaining(
    client: TestClient, post: Post, rows: Rows
) -> None:
    rows.version()
    first = post(*range(10)).json()["request_id"]
    assert client.delete(f"/v1/deletion-requests/{first}").status_code == 204
    assert post(*range(10, TRAIN)).status_code == 202


def test_pairs_that_nothing_was_trained_on_complete_at_once(client: TestClient, rows: Rows) -> None:
    rows.version()
    targets = {"pair_ids": ["test-0", "val-1"]}
    body = {"dataset_id": rows.dataset_id, "targets": targets}
    answer = client.post("/v1/deletion-requests", json=body)
    assert answer.status_code == 202
    assert answer.json()["status"] == "completed"
    assert answer.json()["not_trained_count"] == 2
    request_id = answer.json()["request_id"]
    assert rows.leaves(request_id) == ["request_received", "request_completed"]


def test_a_dataset_that_nothing_learned_from_completes_at_once(post: Post) -> None:
    assert post(0).json()["status"] == "completed"


def test_who_has_nothing_to_wait_for_is_not_told_when_to_ask_again(
    client: TestClient, post: Post, rows: Rows
) -> None:
    key = {"Idempotency-Key": "done"}
    done, again = post(0, headers=key), post(0, headers=key)
    for answer in (done, again):
        assert answer.json()["status"] == "completed"
        assert answer.headers["Location"].endswith(answer.json()["request_id"])
        assert "Retry-After" not in answer.headers
    assert "Retry-After" not in client.get(done.headers["Location"]).headers
    rows.version()
    waiting = post(1)
    assert waiting.headers["Retry-After"] == "5"
    assert client.get(waiting.headers["Location"]).headers["Retry-After"] == "5"


def test_a_large_request_that_is_refused_keeps_nobody_waiting(
    client: TestClient, rows: Rows, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.deletions.service._MANY_TARGETS", 2)
    body = {
        "dataset_id": rows.dataset_id,
        "targets": {"pair_ids": ["no-1", "no-2"], "item_ids": ["no-item"], "text_ids": ["no-text"]},
    }
    with database.transaction() as session:
        hold_dataset(session, rows.dataset_id)
        answer = client.post("/v1/deletion-requests", json=body)
    assert answer.status_code == 422
    assert answer.json()["unknown"] == {
        "pair_ids": {"count": 2, "first": ["no-1", "no-2"]},
        "item_ids": {"count": 1, "first": ["no-item"]},
        "text_ids": {"count": 1, "first": ["no-text"]},
    }


def test_an_unknown_dataset_is_not_found(post: Post) -> None:
    assert post(0, dataset_id="ds_none").status_code == 404


def test_a_dataset_without_manifest_is_a_conflict(post: Post, rows: Rows) -> None:
    with rows.database.transaction() as session:
        session.execute(text("UPDATE datasets SET status = 'empty'"))
    assert post(0).status_code == 409


def test_versions_limit_a_request_to_their_lineages(post: Post, rows: Rows) -> None:
    first, _ = rows.version(), rows.version()
    second_of_first = rows.version(first, first)
    body = post(0, versions=[second_of_first]).json()
    assert [job["lineage_id"] for job in body["jobs"]] == [first]


def test_a_version_that_did_not_learn_from_the_dataset_is_refused(post: Post, rows: Rows) -> None:
    known = rows.version()
    answer = post(0, versions=[known, "ver_strange"])
    assert answer.status_code == 422
    assert "ver_strange" in answer.json()["detail"]


@pytest.mark.parametrize(
    "change",
    [
        {"method": "no-such-method"},
        {"params": {"no_such_parameter": 1}},
        {"scope": "full"},
        {"targets": {}},
        {"targets": {"pair_ids": [""]}},
        {"method": "retrain", "update": "fusion"},
    ],
)
def test_what_cannot_be_done_is_refused_with_a_reason(
    post: Post, rows: Rows, change: dict[str, Any]
) -> None:
    rows.version()
    answer = post(0, **change)
    assert answer.status_code == 422
    assert len(answer.json()["detail"]) > 20


def test_unseen_pairs_are_no_aim_on_a_dataset_that_has_none(
    client: TestClient, post: Post, rows: Rows
) -> None:
    with rows.database.transaction() as session:
        splits = 'UPDATE datasets SET split_counts = \'{"train": 20, "test": 3}\''
        session.execute(text(splits))
    assert post(0, objective="calibrated").status_code == 202  # nothing learned it
    rows.version()
    refused = post(0, objective="calibrated")
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "#/objective"
    assert "no validation pairs. Choose the objective 'decouple'" in refused.json()["detail"]
    assert post(0, objective="calibrated", method="retrain").status_code == 202
    assert post(0).status_code == 202


def test_the_same_idempotency_key_files_one_request(
    client: TestClient, post: Post, rows: Rows
) -> None:
    rows.version()
    key = {"Idempotency-Key": "a-1"}
    first, second = post(0, headers=key), post(0, headers=key)
    assert second.json() == first.json()
    assert second.headers["Location"] == first.headers["Location"]
    assert len(client.get("/v1/deletion-requests").json()["items"]) == 1
    assert post(1, headers=key).status_code == 422


def test_requests_with_the_same_wishes_share_a_waiting_job(post: Post, rows: Rows) -> None:
    rows.version()
    first, second, other = post(0).json(), post(1).json(), post(2, method="finetune").json()
    assert first["jobs"][0]["job_id"] == second["jobs"][0]["job_id"]
    assert first["jobs"][0]["job_id"] != other["jobs"][0]["job_id"]


def test_a_claimed_job_is_not_joined(post: Post, rows: Rows) -> None:
    rows.version()
    first = post(0).json()["jobs"][0]["job_id"]
    rows.claim(first)
    assert post(1).json()["jobs"][0]["job_id"] != first


def test_lists_are_filtered_and_paged(client: TestClient, post: Post, rows: Rows) -> None:
    rows.version()
    filed = [post(number).json()["request_id"] for number in range(3)]
    page = client.get("/v1/deletion-requests?limit=2&status=pending")
    assert [item["request_id"] for item in page.json()["items"]] == filed[:0:-1]
    rest = client.get(page.links["next"]["url"]).json()
    assert [item["request_id"] for item in rest["items"]] == filed[:1]
    assert rest["items"][0]["jobs"][0]["status"] == "queued"
    assert client.get("/v1/deletion-requests?status=completed").json()["items"] == []


def test_leaves_name_no_pair(post: Post, rows: Rows) -> None:
    rows.version()
    post(0, reason="secret reason")
    with rows.database.transaction() as session:
        bodies = session.execute(text("SELECT body FROM ledger_leaves")).scalars().all()
    assert bodies
    assert not any(b"train-0" in bytes(body) or b"secret" in bytes(body) for body in bodies)
