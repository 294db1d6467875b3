"""The salt of a request can be deleted, and with it the tie between its commitment and pairs."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx import Response

from app.deletions.tables import DeletionRequest
from app.ledger.log import leaves_about
from app.ledger.records import pairs_commitment
from app.ledger.verify import verify_certificate
from tests.app.deletions.deletion_rows import Rows

Post = Callable[..., Response]
Read = Callable[[str], dict[str, Any]]


def _salt(rows: Rows, request_id: str) -> bytes | None:
    with rows.database.transaction() as session:
        return session.get_one(DeletionRequest, request_id).salt


def _url(request_id: str) -> str:
    return f"/v1/deletion-requests/{request_id}/salt"


def test_salt_of_a_completed_request_is_deleted_and_recorded(
    client: TestClient, post: Post, read: Read, rows: Rows
) -> None:
    rows.version()
    request_id = post(0, 1).json()["request_id"]
    rows.finish(read(request_id)["jobs"][0]["job_id"])
    before = read(request_id)
    salt = _salt(rows, request_id)
    assert salt is not None
    assert client.delete(_url(request_id)).status_code == 204
    assert _salt(rows, request_id) is None
    assert read(request_id) == before
    with rows.database.transaction() as session:
        received = leaves_about(session, [request_id], ["request_received"])[0]
        deleted = leaves_about(session, [request_id], ["request_salt_deleted"])
    # What the salt had tied to the pairs stands as it was.
    commitment = pairs_commitment(salt, ["train-0", "train-1"])
    assert json.loads(received.body)["pairs_commitment"] == commitment
    assert [json.loads(leaf.body)["request_id"] for leaf in deleted] == [request_id]


def test_certificate_verifies_without_the_salt(
    client: TestClient, post: Post, read: Read, rows: Rows
) -> None:
    rows.version()
    request_id = post(0).json()["request_id"]
    rows.finish(read(request_id)["jobs"][0]["job_id"])
    assert client.delete(_url(request_id)).status_code == 204
    certificate = client.get(f"/v1/audit/requests/{request_id}/certificate").json()
    report = verify_certificate(certificate, client.get("/v1/ledger/public-key").text)
    assert report.ok, report
    said = client.get(f"/v1/audit/requests/{request_id}/report").json()["ledger"]
    assert "request_salt_deleted" in json.dumps(said)


def test_deleting_it_again_changes_nothing(client: TestClient, post: Post, rows: Rows) -> None:
    request_id = post(0).json()["request_id"]
    for _ in range(2):
        assert client.delete(_url(request_id)).status_code == 204
    assert rows.leaves(request_id).count("request_salt_deleted") == 1


def test_pairs_of_a_request_without_salt_stay_forgotten(
    client: TestClient, post: Post, rows: Rows
) -> None:
    rows.version()
    filed = post(0).json()
    first = filed["request_id"]
    rows.finish(filed["jobs"][0]["job_id"])
    assert client.delete(_url(first)).status_code == 204
    again = post(0).json()
    assert again["already_forgotten_count"] == 1
    assert again["status"] == "completed"


def test_open_request_keeps_its_salt_until_it_is_withdrawn(
    client: TestClient, post: Post, rows: Rows
) -> None:
    rows.version()
    request_id = post(0).json()["request_id"]
    answer = client.delete(_url(request_id))
    assert answer.status_code == 409
    assert answer.json()["type"].endswith("/deletion-request-open")
    assert "Wait until it is completed, or withdraw it" in answer.json()["detail"]
    assert _salt(rows, request_id) is not None
    assert client.delete(f"/v1/deletion-requests/{request_id}").status_code == 204
    assert client.delete(_url(request_id)).status_code == 204
    assert _salt(rows, request_id) is None


@pytest.mark.parametrize("status", ["pending", "in_progress", "needs_attention", "on_hold"])
def test_no_open_status_lets_the_salt_go(
    client: TestClient, post: Post, rows: Rows, status: str
) -> None:
    request_id = post(0).json()["request_id"]
    with rows.database.transaction() as session:
        session.get_one(DeletionRequest, request_id).status = status
    assert client.delete(_url(request_id)).status_code == 409
    assert "request_salt_deleted" not in rows.leaves(request_id)


def test_salt_of_an_unknown_request_is_not_found(client: TestClient) -> None:
    assert client.delete(_url("req_none")).status_code == 404


def test_only_an_administrator_deletes_a_salt(
    app: FastAPI, post: Post, rows: Rows, make_token: Callable[..., str]
) -> None:
    request_id = post(0).json()["request_id"]
    headers = {"Authorization": f"Bearer {make_token('deletions:read', 'deletions:write')}"}
    with TestClient(app, headers=headers) as writer:
        assert writer.delete(_url(request_id)).status_code == 403
    assert _salt(rows, request_id) is not None
