"""What is recorded of a job that has nothing left to forget, and of requests that share a version."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from app.jobs.start import start
from app.ledger.verify import verify_certificate
from tests.worker.worker_world import FAST, World
from worker import recording
from worker.context import Context
from worker.pipeline import run_job

OTHER = {**FAST, "epochs": 3}


def _run(world: World, context: Context, request: dict[str, Any]) -> dict[str, Any]:
    job_id = request["jobs"][0]["job_id"]
    run_job(context, job_id)
    job = world.job(job_id)
    assert job["status"] == "succeeded", job["error"]
    return job


def _seen(world: World, request: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Return the one version that audit and certificate show, and the text of the page."""
    place = f"/v1/audit/requests/{request['request_id']}"
    [audited] = world.get(place)["versions"]
    bundle = world.get(f"{place}/certificate")
    found = verify_certificate(bundle, world.client.get("/v1/ledger/public-key").text)
    assert found.ok, found.failure
    stated = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))["predicate"]
    [certified] = stated["versions"]
    assert certified["version_id"] == audited["version_id"]
    assert certified["made_for_request"] == audited["made_for_request"]
    measured = {(m["name"], m["moment"], m["subset"]): m for m in audited["audit"]["metrics"]}
    assert certified["metrics"]
    for metric in certified["metrics"]:
        same = measured[metric["name"], metric["moment"], metric["subset"]]
        assert same | metric == same
    page = world.client.get(f"{place}/report", params={"format": "html"}).text
    assert "Nothing was measured" not in page
    return audited, stated, page


def _report(world: World, request: dict[str, Any]) -> dict[str, Any]:
    return world.get(f"/v1/audit/requests/{request['request_id']}/report")


@pytest.fixture
def lineage(world: World, original: Path) -> str:
    """Give a version that learned from the digits."""
    return world.upload(original)


def test_a_request_with_nothing_left_to_forget_stands_on_the_version_that_is_there(
    world: World, context: Context, lineage: str
) -> None:
    first = world.forget("digits-00000", "digits-00001")
    idle = world.forget("digits-00000", method="retrain", params={})
    made = _run(world, context, first)["output_version_id"]
    assert _run(world, context, idle)["output_version_id"] == made
    audited, stated, page = _seen(world, idle)
    assert (audited["version_id"], audited["made_for_request"]) == (made, False)
    assert audited["job_id"] == first["jobs"][0]["job_id"]
    # The version was not retrained, whatever this request had asked for.
    assert stated["guarantee"] == "approximate"
    assert stated["versions"][0]["method"] == "multidelete"
    assert stated["earlier_requests"] == [first["request_id"]]
    assert stated["already_forgotten_count"] == 1
    report = _report(world, idle)
    summary = " ".join(report["summary"])
    assert "1 version made with method multidelete, measured before" in summary
    assert "new version" not in summary
    [version] = report["versions"]
    assert (version["made_for_request"], version["other_requests"]) == (False, 1)
    assert version["findings"]
    assert "for other requests; it had forgotten the pairs before" in page
    assert _seen(world, first)[0]["made_for_request"] is True
    assert "A new version was made with method multidelete" in " ".join(
        _report(world, first)["summary"]
    )


def test_requests_that_share_a_version_count_it_once_and_say_for_whom_it_was_made(
    world: World, context: Context, lineage: str
) -> None:
    first = world.forget("digits-00000")
    done, *new = [world.forget(f"digits-0000{n}", params=OTHER) for n in range(3)]
    _run(world, context, first)
    made = _run(world, context, done)["output_version_id"]
    assert len(world.versions()) == 3
    for request in new:
        audited, _, _ = _seen(world, request)
        assert (audited["version_id"], audited["made_for_request"]) == (made, True)
        summary = " ".join(_report(world, request)["summary"])
        assert "A new version was made" in summary
        assert "forgot the pairs of another request in the same step" in summary
    # It shared the job, and the version before had forgotten its pair.
    audited, stated, _ = _seen(world, done)
    assert (audited["version_id"], audited["made_for_request"]) == (made, False)
    subsets = {metric["subset"] for metric in stated["versions"][0]["metrics"]}
    assert subsets == {"test", "forgotten"}  # the job's own pairs are those of others
    shown = {finding["subset"] for finding in _report(world, done)["versions"][0]["findings"]}
    assert "forget" not in shown
    assert "forgotten" in shown


def test_pairs_forgotten_by_several_requests_stand_on_the_last_version(
    world: World, context: Context, lineage: str
) -> None:
    filed = [world.forget("digits-00000")]
    _run(world, context, filed[0])
    filed.append(world.forget("digits-00001"))
    made = _run(world, context, filed[1])["output_version_id"]
    both = world.forget("digits-00000", "digits-00001")
    assert both["status"] == "completed"
    audited, stated, _ = _seen(world, both)
    assert (audited["version_id"], audited["made_for_request"]) == (made, False)
    assert stated["guarantee"] == "approximate"
    assert stated["earlier_requests"] == [request["request_id"] for request in filed]
    assert "No registered version" not in " ".join(_report(world, both)["summary"])


def test_a_request_of_which_some_pairs_were_forgotten_before_is_measured_on_all_of_them(
    world: World, context: Context, lineage: str
) -> None:
    _run(world, context, world.forget("digits-00000", "digits-00001"))
    partly = world.forget("digits-00000", "digits-00001", "digits-00002")
    _run(world, context, partly)
    audited, stated, page = _seen(world, partly)
    own = f"request:{partly['request_id']}"
    sizes = {m["subset"]: m["n"] for m in audited["audit"]["metrics"] if m["name"] == "d_f"}
    assert sizes == {"forget": 1, "forgotten": 3, own: 3}
    assert [part["pair_count"] for part in audited["forgotten_in"]] == [2, 1]
    assert {m["n"] for m in stated["versions"][0]["metrics"] if m["subset"] == own} == {3}
    assert "on the 3 pairs of this request, 2 of them forgotten before this version" in page
    assert "on 1 of the 3 pairs of this request: those that this version was made to" in page
    again = world.forget("digits-00001", "digits-00002")
    assert again["met_by_request_id"] == partly["request_id"]
    [version] = _report(world, again)["versions"]
    assert f"on the 3 pairs of request {partly['request_id']}, 2 of them" in str(
        version["findings"]
    )
    assert "Of the 2 training pairs of this request were 1 forgotten in version 2 and 1" in str(
        version["forgotten_sentence"]
    )


def test_a_request_withdrawn_before_an_idle_job_looked_is_not_taken_for_forgotten(
    world: World, context: Context, lineage: str
) -> None:
    first = world.forget("digits-00000")
    done = world.forget("digits-00000", params=OTHER)
    withdrawn = world.forget("digits-00001", params=OTHER)
    [job_id] = {request["jobs"][0]["job_id"] for request in (done, withdrawn)}
    _run(world, context, first)
    with context.database.transaction() as session:
        lease = start(session, context.signer, job_id, "test", seconds=60, max_attempts=3)
    assert lease is not None
    place = f"/v1/deletion-requests/{withdrawn['request_id']}"
    assert world.client.delete(place).status_code == 204
    recording.record_nothing_to_do(context, lease)
    assert world.request(done["request_id"])["status"] == "completed"
    again = world.forget("digits-00001")
    assert (again["status"], again["already_forgotten_count"]) == ("pending", 0)
