"""Which retired versions a report and a certificate name: those that learned pairs of the request."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.audit.report import report_of
from app.deletions.outcome import stated
from app.deletions.tables import DeletionRequest
from tests.app.deletions.deletion_rows import Rows


def _retire(client: TestClient, rows: Rows, version_id: str) -> None:
    place = f"/v1/models/{rows.model_id}/versions/{version_id}/retire"
    assert client.post(place).status_code == 200


def _named(rows: Rows, request_id: str) -> tuple[list[str], list[str], set[str]]:
    """Return the retired versions of report and certificate, and the report's subjects."""
    with rows.database.transaction() as session:
        certified = stated(session.get_one(DeletionRequest, request_id))["retired_versions"]
        report = report_of(session, rows.signer, request_id)
    return report.retired_versions, certified, {leaf.subject for leaf in report.ledger.leaves}


def _file(client: TestClient, rows: Rows, *pair_ids: str) -> dict[str, Any]:
    body = {"dataset_id": rows.dataset_id, "targets": {"pair_ids": list(pair_ids)}}
    return dict(client.post("/v1/deletion-requests", json=body).json())


@pytest.mark.parametrize(
    ("pair_ids", "learned"), [(["val-0"], False), (["val-0", "train-0"], True)]
)
def test_a_retired_version_is_named_only_where_a_training_pair_is(
    client: TestClient, rows: Rows, pair_ids: list[str], learned: bool
) -> None:
    version_id = rows.version()
    _retire(client, rows, version_id)
    request = _file(client, rows, *pair_ids)
    assert request["status"] == "completed"
    report, certified, subjects = _named(rows, request["request_id"])
    assert report == certified == ([version_id] if learned else [])
    assert (version_id in subjects) is learned


def test_a_retired_version_that_was_trained_without_the_pairs_is_not_named(
    client: TestClient, rows: Rows
) -> None:
    _file(client, rows, "train-0")
    version_id = rows.finish(rows.training())
    _retire(client, rows, version_id)
    without, mixed = _file(client, rows, "train-0"), _file(client, rows, "train-0", "train-1")
    assert _named(rows, without["request_id"])[:2] == ([], [])
    assert _named(rows, mixed["request_id"])[:2] == ([version_id], [version_id])


def test_nothing_is_counted_as_forgotten_before_where_no_version_is_in_use(
    client: TestClient, rows: Rows
) -> None:
    rows.version()
    tip = rows.finish(_file(client, rows, "train-0")["jobs"][0]["job_id"])
    assert _file(client, rows, "train-0")["already_forgotten_count"] == 1
    _retire(client, rows, tip)
    again = _file(client, rows, "train-0")
    assert again["already_forgotten_count"] == 0
    place = f"/v1/audit/requests/{again['request_id']}/report"
    page = client.get(place, params={"format": "html"}).text
    assert "<dt>Pairs</dt><dd>1, of which 0 never trained on</dd>" in page
