"""Where the pairs of a request were forgotten: in which versions, and how many in each."""

import base64
import json
from collections.abc import Callable
from typing import Any

from fastapi.testclient import TestClient
from httpx import Response

from app.ledger.explain import describe
from tests.app.deletions.deletion_rows import Rows

Post = Callable[..., Response]


def _audited(client: TestClient, request_id: str) -> list[dict[str, Any]]:
    return list(client.get(f"/v1/audit/requests/{request_id}").json()["versions"])


def _parts(version: dict[str, Any]) -> list[tuple[int, int, bool]]:
    return [
        (part["number"], part["pair_count"], part["learned"]) for part in version["forgotten_in"]
    ]


def _forget(post: Post, rows: Rows, *numbers: int, **more: Any) -> dict[str, Any]:
    """File a request and let its job succeed; returns the request."""
    request = dict(post(*numbers, **more).json())
    rows.finish(request["jobs"][0]["job_id"])
    return request


def test_pairs_that_earlier_versions_forgot_are_counted_there(
    client: TestClient, post: Post, rows: Rows
) -> None:
    rows.version()
    first = _forget(post, rows, 0, 1)
    second = _forget(post, rows, 1, 2, 3)
    both = post(0, 2, 3).json()
    assert both["status"] == "completed"
    [one], [two], [three] = (
        _audited(client, request["request_id"]) for request in (first, second, both)
    )
    assert _parts(one) == [(2, 2, True)]
    assert _parts(two) == [(2, 1, True), (3, 2, True)]
    assert (three["number"], _parts(three)) == (3, [(2, 1, True), (3, 2, True)])


def test_report_and_certificate_say_in_which_version_pairs_were_forgotten(
    client: TestClient, post: Post, rows: Rows
) -> None:
    rows.version()
    _forget(post, rows, 0, 1, 2)
    partly = _forget(post, rows, 0, 1, 2, 3)["request_id"]
    place = f"/v1/audit/requests/{partly}"
    said = (
        "Of the 4 training pairs of this request were 3 forgotten in version 2 and 1 forgotten in"
        " version 3."
    )
    report = client.get(f"{place}/report").json()
    assert said in " ".join(report["summary"])
    assert said in client.get(f"{place}/report", params={"format": "html"}).text
    assert report["versions"][0]["forgotten_sentence"].startswith(said)
    envelope = client.get(f"{place}/certificate").json()["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    [version] = statement["predicate"]["versions"]
    earlier, last = version["forgotten_in"]
    assert (earlier["pair_count"], last["pair_count"]) == (3, 1)
    assert last["version_id"] == version["version_id"]
    told = " ".join(describe(statement))
    assert f"3 in {earlier['version_id']}, 1 in {version['version_id']}." in told


def test_nothing_is_said_where_one_version_forgot_everything(
    client: TestClient, post: Post, rows: Rows
) -> None:
    rows.version()
    request_id = _forget(post, rows, 0, 1)["request_id"]
    [version] = client.get(f"/v1/audit/requests/{request_id}/report").json()["versions"]
    assert version["forgotten_sentence"] == ""


def test_pairs_that_the_training_left_out_are_told_from_forgotten_ones(
    client: TestClient, post: Post, rows: Rows
) -> None:
    post(0)
    rows.finish(rows.training())
    mixed = _forget(post, rows, 0, 1)["request_id"]
    [version] = _audited(client, mixed)
    assert _parts(version) == [(1, 1, False), (2, 1, True)]
    summary = " ".join(client.get(f"/v1/audit/requests/{mixed}/report").json()["summary"])
    assert "1 left out of the training of version 1 and 1 forgotten in version 2" in summary


def test_a_wider_scope_counts_only_methods_that_meet_it(
    client: TestClient, post: Post, rows: Rows
) -> None:
    rows.version()
    _forget(post, rows, 0)
    wider = _forget(post, rows, 0, 1, method="retrain", scope="full")["request_id"]
    [version] = _audited(client, wider)
    assert _parts(version) == [(3, 2, True)]
