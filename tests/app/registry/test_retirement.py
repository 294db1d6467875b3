"""Versions out of use: what that means to requests, jobs, downloads and the ledger."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx import Response

from app.core.db import Database
from app.ledger.verify import verify_certificate
from tests.app.deletions.deletion_rows import TRAIN, Rows

Make = Callable[..., dict[str, Any]]


@pytest.fixture
def rows(database: Database, app: FastAPI) -> Rows:
    """Give a dataset of 20 training pairs and a model without versions."""
    return Rows.make(database, app.state.signer, app.state.queue)


@pytest.fixture
def retire(client: TestClient, rows: Rows) -> Callable[..., Response]:
    def post(version_id: str, **more: Any) -> Response:
        return client.post(f"/v1/models/{rows.model_id}/versions/{version_id}/retire", **more)

    return post


@pytest.fixture
def forget(client: TestClient, rows: Rows) -> Callable[..., Response]:
    def post(*numbers: int, **more: Any) -> Response:
        targets = {"pair_ids": [f"train-{number}" for number in numbers]}
        body = {"dataset_id": rows.dataset_id, "targets": targets, **more}
        return client.post("/v1/deletion-requests", json=body)

    return post


Retire = Callable[..., Response]
Forget = Callable[..., Response]


def _get(client: TestClient, path: str) -> dict[str, Any]:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def _request(client: TestClient, request_id: str) -> dict[str, Any]:
    return _get(client, f"/v1/deletion-requests/{request_id}")


def _report(client: TestClient, request_id: str) -> dict[str, Any]:
    return _get(client, f"/v1/audit/requests/{request_id}/report")


def _stated(client: TestClient, request_id: str) -> dict[str, Any]:
    bundle = _get(client, f"/v1/audit/requests/{request_id}/certificate")
    found = verify_certificate(bundle, client.get("/v1/ledger/public-key").text)
    assert found.ok, found.failure
    stated = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))["predicate"]
    return dict(stated)


def test_a_retired_version_can_be_read_and_the_ledger_says_so_once(
    client: TestClient, rows: Rows, retire: Retire
) -> None:
    version_id = rows.version()
    first, again = retire(version_id), retire(version_id)
    assert (first.status_code, first.json()["status"]) == (200, "retired")
    assert again.json() == first.json()
    place = f"/v1/models/{rows.model_id}/versions/{version_id}"
    assert _get(client, place) == first.json()
    assert first.json()["retired_time"]
    assert rows.leaves(version_id) == ["version_retired"]
    assert _get(client, f"/v1/audit/versions/{version_id}")["version_id"] == version_id
    [lineage] = _get(client, f"/v1/models/{rows.model_id}/lineage")["lineages"]
    assert lineage["tip_version_id"] is None
    assert [one["status"] for one in lineage["versions"]] == ["retired"]


def test_a_key_repeats_the_answer(rows: Rows, retire: Retire) -> None:
    version_id, headers = rows.version(), {"Idempotency-Key": "retire-1"}
    first = retire(version_id, headers=headers)
    assert retire(version_id, headers=headers).headers["Idempotency-Replayed"] == "true"
    assert retire(rows.version(), headers=headers).status_code == 422
    assert first.status_code == 200


def test_the_versions_that_it_was_made_from_go_with_it(rows: Rows, retire: Retire) -> None:
    first = rows.version()
    second = rows.version(first, first)
    assert retire(second).status_code == 200
    assert rows.leaves(first) == rows.leaves(second) == ["version_retired"]


def test_a_lineage_goes_on_without_its_older_versions(
    rows: Rows, retire: Retire, forget: Forget
) -> None:
    first = rows.version()
    second = rows.version(first, first)
    retire(first)
    [job] = forget(0).json()["jobs"]
    assert rows.claim(job["job_id"]) is not None
    assert retire(first).status_code == 200
    refused = retire(second)
    assert refused.status_code == 409


def test_a_version_that_a_job_runs_on_is_refused_until_the_job_ends(
    client: TestClient, rows: Rows, retire: Retire, forget: Forget
) -> None:
    version_id = rows.version()
    request = forget(0).json()
    job_id = request["jobs"][0]["job_id"]
    lease = rows.claim(job_id)
    refused = retire(version_id)
    assert refused.status_code == 409
    assert refused.json()["type"].endswith("/version-in-use")
    assert f"Job {job_id} (unlearn) is preparing" in refused.json()["detail"]
    assert rows.leaves(version_id) == []
    newer = rows.finish(job_id, lease)
    assert retire(version_id).status_code == 200
    place = f"/v1/models/{rows.model_id}/versions/{newer}"
    assert _get(client, place)["status"] == "ready"


def test_a_later_request_skips_it_and_report_and_certificate_say_so(
    client: TestClient, rows: Rows, retire: Retire, forget: Forget
) -> None:
    used, unused = rows.version(), rows.version()
    retire(unused)
    request = forget(0).json()
    [job] = request["jobs"]
    assert job["lineage_id"] == used
    made = rows.finish(job["job_id"])
    report = _report(client, request["request_id"])
    assert report["retired_versions"] == [unused]
    assert f"Retired, so out of use and left as they are: {unused}." in report["summary"]
    assert "version_retired" in [leaf["kind"] for leaf in report["ledger"]["leaves"]]
    stated = _stated(client, request["request_id"])
    assert stated["retired_versions"] == [unused]
    assert [one["version_id"] for one in stated["versions"]] == [made]


def test_where_all_are_retired_the_whole_training_set_can_be_deleted(
    client: TestClient, rows: Rows, retire: Retire, forget: Forget
) -> None:
    version_id = rows.version()
    refused = forget(*range(TRAIN))
    assert refused.status_code == 422
    assert "/retire" in refused.json()["detail"]
    retire(version_id)
    request = forget(*range(TRAIN)).json()
    assert request["status"] == "completed"
    stated = _stated(client, request["request_id"])
    assert (stated["guarantee"], stated["retired_versions"]) == ("not_needed", [version_id])
    body = {"source": "training", "dataset_id": rows.dataset_id}
    answer = client.post(f"/v1/models/{rows.model_id}/versions", json=body)
    assert answer.status_code == 422
    assert answer.json()["type"].endswith("/too-few-training-pairs")
    assert "0 are left" in answer.json()["detail"]


def test_a_retired_version_cannot_be_listed_as_a_target(
    rows: Rows, retire: Retire, forget: Forget
) -> None:
    first = rows.version()
    second = rows.version(first, first)
    retire(first)
    refused = forget(0, versions=[first, second])
    assert refused.status_code == 409
    assert refused.json()["type"].endswith("/version-retired")
    assert first in refused.json()["detail"]
    assert forget(0, versions=[second]).status_code == 202


def test_a_request_that_a_broken_lineage_kept_from_its_end_is_completed(
    client: TestClient, rows: Rows, retire: Retire, forget: Forget
) -> None:
    broken, sound = rows.version(), rows.version()
    request = forget(0).json()
    jobs = {job["lineage_id"]: job["job_id"] for job in request["jobs"]}
    rows.finish(jobs[sound])
    rows.fail(jobs[broken])
    assert _request(client, request["request_id"])["status"] == "needs_attention"
    assert retire(broken).status_code == 200
    done = _request(client, request["request_id"])
    assert (done["status"], done["status_reason"]) == ("completed", None)
    assert _stated(client, request["request_id"])["retired_versions"] == [broken]
    assert [job["lineage_id"] for job in forget(1).json()["jobs"]] == [sound]


def test_a_job_that_waits_is_cancelled_and_its_requests_wait_no_longer(
    client: TestClient, rows: Rows, retire: Retire, forget: Forget
) -> None:
    version_id = rows.version()
    first, second = forget(0).json(), forget(1, method="finetune").json()
    retire(version_id)
    for request in (first, second):
        job = _get(client, f"/v1/jobs/{request['jobs'][0]['job_id']}")
        assert job["status"] == "cancelled"
        assert f"version {version_id} was retired" in job["error"]["message"]
        done = _request(client, request["request_id"])
        assert done["status"] == "completed"
        assert _report(client, request["request_id"])["guarantee"] == "not_needed"


def test_another_try_leaves_retired_lineages_out(
    client: TestClient, rows: Rows, retire: Retire, forget: Forget
) -> None:
    one, other = rows.version(), rows.version()
    request = forget(0).json()
    for job in request["jobs"]:
        rows.fail(job["job_id"])
    retire(one)
    stuck = _request(client, request["request_id"])
    assert stuck["status"] == "needs_attention"
    again = client.post(f"/v1/deletion-requests/{request['request_id']}/retry").json()
    new = [job for job in again["jobs"] if job["status"] == "queued"]
    assert [job["lineage_id"] for job in new] == [other]


def test_what_forgot_before_it_was_retired_still_stands(
    client: TestClient, rows: Rows, retire: Retire, forget: Forget
) -> None:
    rows.version()
    request = forget(0).json()
    made = rows.finish(request["jobs"][0]["job_id"])
    before = _stated(client, request["request_id"])
    retire(made)
    assert _stated(client, request["request_id"]) == before
    report = _report(client, request["request_id"])
    assert [(one["version_id"], one["status"]) for one in report["versions"]] == [(made, "retired")]
    assert report["retired_versions"] == []


def test_files_of_a_retired_version_are_not_given_out(
    client: TestClient, make_model: Make, make_dataset: Make, upload: Make
) -> None:
    dataset = make_dataset()
    version = upload(make_model(), dataset_id=dataset["dataset_id"])
    place = f"/v1/models/{version['model_id']}/versions/{version['version_id']}"
    assert client.post(f"{place}/retire").json()["status"] == "retired"
    refused = client.get(f"{place}/files/model.safetensors")
    assert refused.status_code == 409
    assert refused.json()["type"].endswith("/version-retired")
    assert client.head(f"{place}/files/model.safetensors").status_code == 409
    assert len(_get(client, f"{place}/files")["files"]) == 5
    assert client.put(f"{place}/files/README.md", content=b"new").status_code == 409
    assert client.post(f"{place}/finalize").json()["status"] == "retired"
    [job] = _get(client, "/v1/jobs")["items"]  # its audit, which had not begun
    assert job["status"] == "cancelled"


def test_only_a_ready_version_of_the_model_can_be_retired(
    client: TestClient, make_model: Make, upload: Make, rows: Rows, retire: Retire
) -> None:
    assert retire("ver_none").status_code == 404
    model = make_model()
    place = f"/v1/models/{model['model_id']}/versions"
    waiting = client.post(place, json={"source": "upload"}).json()["version_id"]
    refused = client.post(f"{place}/{waiting}/retire")
    assert refused.status_code == 409
    assert refused.json()["type"].endswith("/version-not-ready")
    apart = upload(model)  # it names no dataset
    assert retire(apart["version_id"]).status_code == 404
    assert client.post(f"{place}/{apart['version_id']}/retire").json()["status"] == "retired"


def test_retiring_needs_the_scope_models_write(
    app: FastAPI, rows: Rows, make_token: Callable[..., str]
) -> None:
    place = f"/v1/models/{rows.model_id}/versions/{rows.version()}/retire"
    with TestClient(
        app, headers={"Authorization": f"Bearer {make_token('models:read')}"}
    ) as reader:
        assert reader.post(place).status_code == 403
