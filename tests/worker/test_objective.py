"""A deletion that aims at what was never seen, from request to certificate, with the real trainer."""

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from fastapi.testclient import TestClient

from engine.checkpoints import load_checkpoint
from engine.data.manifest import load_dataset
from engine.inputs import Inputs
from engine.spec import DataSpec
from engine.tasks import tasks
from tests.worker.worker_world import World
from worker.context import Context
from worker.pipeline import run_job

COUNT = 12  # enough for intervals
SENTENCE = "Objective: calibrated, deleted pairs are to look like pairs that the model never saw."


def test_the_aim_calibrated_is_in_the_run_audit_report_certificate_and_verification(
    client: TestClient,
    world: World,
    context: Context,
    original: Path,
    digits: Path,
    tmp_path: Path,
) -> None:
    world.upload(original)
    request = world.forget(*_best_known(original, digits), objective="calibrated")
    job_id = str(request["jobs"][0]["job_id"])
    run_job(context, job_id)
    job = world.job(job_id)
    assert job["status"] == "succeeded", job["error"]
    assert request["objective"] == job["spec"]["objective"] == "calibrated"
    version = world.versions()[0]
    files = f"/v1/models/{world.model_id}/versions/{version['version_id']}/files"
    assert world.get(f"{files}/lethe.json")["unlearning"][-1]["objective"] == "calibrated"

    place = f"/v1/audit/requests/{request['request_id']}"
    [audited] = world.get(place)["versions"]
    assert audited["audit"]["objective"] == "calibrated"
    _check_report(client, place)
    _check_certificate(client, place, tmp_path)


def _best_known(original: Path, digits: Path) -> list[str]:
    """Return the training pairs that score highest: others may look like unseen ones already."""
    model = load_checkpoint(original).model
    dataset = load_dataset(DataSpec(manifest=digits / "manifest.jsonl", root=digits))
    rows = torch.tensor([at for at, pair in enumerate(dataset.pairs) if pair.split == "train"])
    with torch.no_grad():
        scores = tasks.get("retrieval")().scores(model, Inputs(model, dataset), rows)
    best = rows[scores.argsort(descending=True)[:COUNT]]
    return [dataset.pairs[row].id for row in best.tolist()]


def _check_report(client: TestClient, place: str) -> None:
    report = client.get(f"{place}/report").json()
    [version] = report["versions"]
    assert report["request"]["objective"] == "calibrated"
    readings = {one["name"]: one["reading"] for one in version["findings"]}
    assert "aim 'calibrated' is judged against never seen pairs" in readings["d_f"]
    page = client.get(f"{place}/report", headers={"Accept": "text/html"}).text
    assert "calibrated, deleted pairs are to look like pairs that the model never saw" in page


def _check_certificate(client: TestClient, place: str, folder: Path) -> None:
    bundle: dict[str, Any] = client.get(f"{place}/certificate").json()
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    assert statement["predicate"]["objective"] == "calibrated"
    (folder / "certificate.json").write_text(json.dumps(bundle), encoding="utf-8")
    key = client.get("/v1/ledger/public-key").text
    (folder / "key.pem").write_text(key, encoding="utf-8")
    command = ["-m", "app.cli", "verify", "certificate.json", "--key", "key.pem"]
    told = subprocess.run(
        [sys.executable, *command], cwd=folder, check=True, capture_output=True, text=True
    )
    assert SENTENCE in " ".join(told.stdout.split())
