"""A deletion with reference models from request to certificate, with the real trainer."""

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.ledger.explain import describe
from app.ledger.verify import verify_certificate
from tests.worker.worker_world import new_world
from worker.context import Context
from worker.pipeline import run_job

COUNT = 4
NAMES = ("ulira_auc", "ulira_tpr_at_1pct_fpr", "ulira_tpr_at_0.1pct_fpr")
PAIRS = 1000  # 120 of them for tests: 20 stand against deleted pairs, 100 against retained ones


@pytest.fixture
def many_digits(tmp_path: Path) -> Path:
    """Give a folder of so many digit pairs that a rate of 1 in 100 can be measured."""
    folder = tmp_path / "many"
    command = [sys.executable, "-m", "engine.data.digits", str(folder), "--pairs", str(PAIRS)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def test_an_attack_by_four_reference_models_is_in_audit_report_and_certificate(
    client: TestClient, context: Context, many_digits: Path
) -> None:
    world = new_world(client, many_digits)
    run_job(context, world.train(epochs=1, batch_size=100))
    asked = world.forget("digits-00000", "digits-00001", audit={"reference_models": COUNT})
    other = world.forget("digits-00002")
    [job_id] = {one["jobs"][0]["job_id"] for one in (asked, other)}
    run_job(context, job_id)
    job = world.job(job_id)
    assert job["status"] == "succeeded", job["error"]
    assert job["spec"]["reference_models"] == COUNT
    # Progress is written at every heartbeat, which not each of these short phases meets.
    phases = [str(event["data"].get("phase")) for event in _events(client, job_id)]
    assert any(phase.startswith("reference-") for phase in phases)

    [version] = world.get(f"/v1/audit/requests/{asked['request_id']}")["versions"]
    _check_audit(version["audit"]["metrics"])
    for request in (asked, other):
        _check_report(client, request["request_id"], COUNT if request is asked else 0)
        _check_certificate(client, request["request_id"], COUNT if request is asked else 0)


def _events(client: TestClient, job_id: str) -> list[dict[str, Any]]:
    return list(client.get(f"/v1/jobs/{job_id}/events", params={"limit": 1000}).json()["items"])


def _check_audit(metrics: list[dict[str, Any]]) -> None:
    found = {(m["name"], m["moment"], m["subset"]): m for m in metrics if m["name"] in NAMES}
    groups, moments = ("forget", "retained"), ("before", "after")
    assert set(found) == {(n, m, g) for n in NAMES for m in moments for g in groups}
    assert {one["details"]["reference_models"] for one in found.values()} == {COUNT}
    assert found["ulira_auc", "after", "forget"]["n"] == 3
    assert found["ulira_auc", "after", "forget"]["details"]["never_seen"] == 20
    assert 0 <= found["ulira_tpr_at_1pct_fpr", "after", "retained"]["value"] <= 1
    assert "1000 never seen" in found["ulira_tpr_at_0.1pct_fpr", "after", "retained"]["unavailable"]


def _check_report(client: TestClient, request_id: str, asked: int) -> None:
    place = f"/v1/audit/requests/{request_id}/report"
    report = client.get(place).json()
    [version] = report["versions"]
    assert (report["request"]["reference_models"], version["reference_models"]) == (asked, COUNT)
    shown = {(one["name"], one["subset"]) for one in version["findings"]}
    assert {(name, group) for name in NAMES for group in ("forget", "retained")} <= shown
    page = client.get(place, headers={"Accept": "text/html"}).text
    assert f"{COUNT}, trained like its original" in page
    assert "TPR at 1% FPR" in page
    assert "TPR at 0.1% FPR" in page


def _check_certificate(client: TestClient, request_id: str, asked: int) -> None:
    bundle = client.get(f"/v1/audit/requests/{request_id}/certificate").json()
    key = client.get("/v1/ledger/public-key").text
    assert verify_certificate(bundle, key).ok
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    [version] = statement["predicate"]["versions"]
    assert statement["predicate"]["reference_models"] == asked
    assert version["reference_models"] == COUNT
    stated = {(one["name"], one["subset"]) for one in version["metrics"]}
    assert {(name, group) for name in NAMES for group in ("forget", "retained")} <= stated
    assert f"Each pair was attacked by {COUNT} reference models." in " ".join(describe(statement))
