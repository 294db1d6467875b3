"""Audits and certificates over HTTP, from a real database."""

import base64
import json
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.core.db import Database
from app.deletions.tables import DeletionRequest
from app.ledger import log
from app.ledger.records import RequestWithdrawn
from app.ledger.verify import verify_certificate

READS = (
    "/v1/audit/versions/ver_2",
    "/v1/audit/requests/req_1",
    "/v1/audit/requests/req_1/report",
    "/v1/audit/requests/req_1/certificate",
)


def key_of(client: TestClient) -> str:
    return client.get("/v1/ledger/public-key").text


def test_the_audit_of_a_version_has_every_metric_as_it_was_recorded(
    client: TestClient, case: Any
) -> None:
    case.file()
    case.run()
    body = client.get("/v1/audit/versions/ver_2").json()
    assert (body["version_id"], body["number"], body["checkpoint_sha256"]) == (
        "ver_2",
        2,
        "ab" * 32,
    )
    [audit] = body["audits"]
    assert audit["metrics"] == json.loads(json.dumps(case.metrics))
    assert audit["cost"] == {"seconds": 83.4, "steps": 120}
    assert audit["environment"] == {"torch": "2.13.0"}


def test_a_version_that_was_never_measured_has_no_audits(client: TestClient, case: Any) -> None:
    case.file()
    assert client.get("/v1/audit/versions/ver_1").json()["audits"] == []


def test_the_audit_of_a_request_covers_each_version_made_for_it(
    client: TestClient, case: Any
) -> None:
    case.file()
    case.run()
    body = client.get("/v1/audit/requests/req_1").json()
    assert (body["request_id"], body["status"]) == ("req_1", "in_progress")
    [made] = body["versions"]
    assert (made["version_id"], made["input_version_id"], made["job_id"]) == (
        "ver_2",
        "ver_1",
        "job_1",
    )
    assert made["audit"]["metrics"] == json.loads(json.dumps(case.metrics))


def test_a_request_met_by_an_earlier_one_shows_what_was_measured_then(
    client: TestClient, case: Any
) -> None:
    case.file()
    case.run()
    bundle = case.complete("req_1", "ver_2")
    case.file("req_2", status="completed", met_by_request_id="req_1")
    body = client.get("/v1/audit/requests/req_2").json()
    assert body["met_by_request_id"] == "req_1"
    assert [made["version_id"] for made in body["versions"]] == ["ver_2"]
    assert client.get("/v1/audit/requests/req_2/certificate").json() == bundle


@pytest.mark.parametrize("path", READS)
def test_unknown_ids_are_not_found(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert "There is no" in response.json()["detail"]


@pytest.mark.parametrize("path", [*READS, "/v1/ledger/head", "/v1/ledger/entries"])
def test_reading_needs_the_scope_audit_read(
    client: TestClient, case: Any, make_token: Any, path: str
) -> None:
    case.file()
    case.run()
    case.complete("req_1", "ver_2")
    other = {"Authorization": f"Bearer {make_token('models:read', 'deletions:write')}"}
    assert client.get(path, headers=other).status_code == 403
    auditor = {"Authorization": f"Bearer {make_token('audit:read')}"}
    assert client.get(path, headers=auditor).status_code == 200
    assert client.get(path, headers={"Authorization": ""}).status_code == 401


def test_a_certificate_from_the_service_verifies_offline(client: TestClient, case: Any) -> None:
    case.file()
    case.run()
    case.complete("req_1", "ver_2")
    response = client.get("/v1/audit/requests/req_1/certificate")
    assert response.headers["content-disposition"].endswith('"req_1.certificate.json"')
    report = verify_certificate(response.json(), key_of(client))
    assert report.ok, report.failure
    stated = report.statement["predicate"]["versions"][0]["metrics"]
    assert {(one["name"], one["moment"]) for one in stated} == {
        ("d_test", "before"),
        ("d_test", "after"),
        ("d_f", "before"),
        ("d_f", "after"),
        ("unseen_auc", "before"),
        ("unseen_auc", "after"),
        ("mi_ratio", "after"),
    }


def test_a_certificate_since_an_older_head_proves_that_the_log_only_grew(
    client: TestClient, case: Any, database: Database
) -> None:
    case.file()
    older = client.get("/v1/ledger/head").json()
    case.run()
    case.complete("req_1", "ver_2")
    with database.transaction() as session:
        log.append(session, RequestWithdrawn(request_id="req_9"))
    path = f"/v1/audit/requests/req_1/certificate?since={older['size']}"
    report = verify_certificate(client.get(path).json(), key_of(client), older["note"])
    assert report.ok, report.failure
    assert report.checks[-1].status == "passed"


def test_a_certificate_since_a_size_that_never_was_is_refused(
    client: TestClient, case: Any
) -> None:
    case.file()
    case.complete("req_1")
    response = client.get("/v1/audit/requests/req_1/certificate?since=99")
    assert response.status_code == 422
    assert response.json()["type"].endswith("/ledger-no-such-size")


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        ("in_progress", "Ask again later."),
        ("cancelled", "File a new request"),
        ("needs_attention", "Job job_1 failed: out of memory. Retry the request."),
    ],
)
def test_there_is_no_certificate_before_completion_and_the_error_says_what_to_do(
    client: TestClient, case: Any, status: str, advice: str
) -> None:
    reason = "Job job_1 failed: out of memory" if status == "needs_attention" else None
    case.file(status=status, status_reason=reason)
    response = client.get("/v1/audit/requests/req_1/certificate")
    assert response.status_code == 409
    assert advice in response.json()["detail"]


def test_a_chain_of_requests_met_by_earlier_ones_leads_to_the_certificate(
    client: TestClient, case: Any
) -> None:
    case.file()
    bundle = case.complete("req_1")
    case.file("req_2", status="completed", met_by_request_id="req_1")
    case.file("req_3", status="completed", met_by_request_id="req_2")
    assert client.get("/v1/audit/requests/req_3/certificate").json() == bundle


def test_the_certificate_is_the_one_that_was_stored_even_when_the_request_changes(
    client: TestClient, case: Any, database: Database
) -> None:
    case.file()
    case.complete("req_1")
    with database.transaction() as session:
        row = session.get_one(DeletionRequest, "req_1")
        row.deadline += timedelta(days=60)
        row.pair_count = 1
    bundle = client.get("/v1/audit/requests/req_1/certificate").json()
    stated = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))["predicate"]
    assert stated["pair_count"] == 160
    assert verify_certificate(bundle, key_of(client)).ok
