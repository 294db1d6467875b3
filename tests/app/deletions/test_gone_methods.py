"""Methods that the catalogue lost, as with a plugin that was uninstalled, while requests name them."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx import Response

from app.deletions import methods
from app.jobs.reaper import Reaper
from app.ledger.verify import verify_certificate
from app.registry.catalogue import catalogue
from tests.app.deletions.deletion_rows import Rows

Post = Callable[..., Response]
Read = Callable[[str], dict[str, Any]]
GONE = "finetune"


@pytest.fixture
def uninstall(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Give a function that takes a method out of the catalogue."""
    known = catalogue()
    left = {name: method for name, method in known.methods.items() if name != GONE}
    smaller = known.model_copy(update={"methods": left})
    return lambda: monkeypatch.setattr(methods, "catalogue", lambda: smaller)


def test_a_training_ends_well_though_the_method_of_a_waiting_request_is_gone(
    client: TestClient, post: Post, read: Read, rows: Rows, uninstall: Callable[[], None]
) -> None:
    training = rows.training()
    lease = rows.claim(training)
    stuck = post(0, method=GONE).json()["request_id"]
    other = post(1).json()["request_id"]
    uninstall()
    version_id = rows.finish(training, lease)
    assert client.get(f"/v1/jobs/{training}").json()["status"] == "succeeded"
    found = read(stuck)
    assert found["status"] == "needs_attention"
    assert version_id in found["status_reason"]
    assert f"{GONE} is no method of this service; known are" in found["status_reason"]
    assert "withdraw it and file one with another method" in found["status_reason"]
    assert [job["relation"] for job in read(other)["jobs"]] == ["awaits", "forget"]


def test_a_request_is_not_tried_again_before_its_method_is_back(
    client: TestClient,
    post: Post,
    read: Read,
    rows: Rows,
    uninstall: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    training = rows.training()
    lease = rows.claim(training)
    request_id = post(0, method=GONE).json()["request_id"]
    with monkeypatch.context():
        uninstall()
        rows.finish(training, lease)
        refused = client.post(f"/v1/deletion-requests/{request_id}/retry")
        assert refused.status_code == 409
        assert refused.json()["type"].endswith("/method-gone")
        assert "no method of this service" in refused.json()["detail"]
        assert read(request_id)["status"] == "needs_attention"
        monkeypatch.setattr(methods, "catalogue", catalogue)  # installed again
    again = client.post(f"/v1/deletion-requests/{request_id}/retry").json()
    rows.finish(again["jobs"][-1]["job_id"])
    assert read(request_id)["status"] == "completed"


def _stated(client: TestClient, request_id: str) -> dict[str, Any]:
    bundle = client.get(f"/v1/audit/requests/{request_id}/certificate").json()
    assert verify_certificate(bundle, client.get("/v1/ledger/public-key").text).ok
    payload = base64.b64decode(bundle["dsseEnvelope"]["payload"])
    return dict(json.loads(payload)["predicate"])


def test_a_job_completes_its_request_though_its_method_went_meanwhile(
    client: TestClient, post: Post, read: Read, rows: Rows, uninstall: Callable[[], None]
) -> None:
    rows.version()
    request = post(0, method=GONE).json()
    job_id = request["jobs"][0]["job_id"]
    lease = rows.claim(job_id)
    uninstall()
    rows.finish(job_id, lease)
    assert read(request["request_id"])["status"] == "completed"
    said = _stated(client, request["request_id"])
    assert said["guarantee"] == "approximate"
    assert f"The method {GONE} is not known to this service any more" in said["limitations"][0]
    report = client.get(f"/v1/audit/requests/{request['request_id']}/report")
    assert said["limitations"][0] in report.json()["limitations"]


def test_a_round_of_the_reaper_settles_requests_whose_method_is_gone(
    post: Post, read: Read, rows: Rows, uninstall: Callable[[], None]
) -> None:
    rows.version()
    request = post(0, method=GONE).json()
    lease = rows.claim(request["jobs"][0]["job_id"])
    assert lease is not None
    _expire(rows, lease.job_id)
    uninstall()
    reaper = Reaper(rows.database, rows.queue, rows.signer, redispatch_seconds=60, retry_seconds=0)
    reaper.tick()
    assert read(request["request_id"])["jobs"][0]["status"] == "queued"
    rows.fail(request["jobs"][0]["job_id"])
    reaper.tick()
    assert read(request["request_id"])["status"] == "needs_attention"


def _expire(rows: Rows, job_id: str) -> None:
    from app.jobs.tables import Job

    with rows.database.transaction() as session:
        job = session.get_one(Job, job_id)
        job.lease_expires_time = job.created_time


def test_pairs_forgotten_by_a_method_that_is_gone_can_be_asked_for_again(
    client: TestClient, post: Post, read: Read, rows: Rows, uninstall: Callable[[], None]
) -> None:
    rows.version()
    rows.finish(post(0, method=GONE).json()["jobs"][0]["job_id"])
    uninstall()
    again = post(0)
    assert again.status_code == 202, again.text
    rows.finish(again.json()["jobs"][0]["job_id"])
    assert read(again.json()["request_id"])["status"] == "completed"
