"""Deleted pairs that versions still know: counted when read, with what to do about them."""

from collections.abc import Callable
from typing import Any

import pytest
from alembic import command
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import event, text

from app.core import migrations
from app.core.db import Database
from tests.app.deletions.deletion_rows import Rows

Make = Callable[..., dict[str, Any]]
Forget = Callable[..., dict[str, Any]]


@pytest.fixture
def rows(database: Database, app: FastAPI) -> Rows:
    """Give a dataset of 20 training pairs and a model without versions."""
    return Rows.make(database, app.state.signer, app.state.queue)


@pytest.fixture
def forget(client: TestClient, rows: Rows) -> Forget:
    """Give a function that files a request on training pairs, or on pairs by their ids."""

    def post(*pairs: int | str, **more: Any) -> dict[str, Any]:
        pair_ids = [pair if isinstance(pair, str) else f"train-{pair}" for pair in pairs]
        body = {"dataset_id": rows.dataset_id, "targets": {"pair_ids": pair_ids}, **more}
        answer = client.post("/v1/deletion-requests", json=body)
        assert answer.status_code == 202, answer.text
        return dict(answer.json())

    return post


def _seen(client: TestClient, rows: Rows) -> dict[str, dict[str, Any]]:
    """Return every version of the model by id; the list, the version, its lineage and audits agree."""
    place = f"/v1/models/{rows.model_id}"
    found = {one["version_id"]: one for one in client.get(f"{place}/versions").json()["items"]}
    for lineage in client.get(f"{place}/lineage").json()["lineages"]:
        for version in lineage["versions"]:
            assert version == found[version["version_id"]]
    for version_id, version in found.items():
        assert client.get(f"{place}/versions/{version_id}").json() == version
        audits = client.get(f"/v1/audit/versions/{version_id}").json()
        assert audits["contains_deleted"] == version["contains_deleted"]
    return found


def _counts(client: TestClient, rows: Rows) -> dict[str, int]:
    return {name: one["contains_deleted"] for name, one in _seen(client, rows).items()}


def _job(request: dict[str, Any], index: int = 0) -> str:
    return str(request["jobs"][index]["job_id"])


def test_an_original_shows_what_later_requests_deleted_and_its_successors_what_is_left(
    client: TestClient, rows: Rows, forget: Forget
) -> None:
    original = rows.version()
    assert _counts(client, rows) == {original: 0}
    first = forget(0, 1, 2, 3, 4)
    assert _counts(client, rows) == {original: 5}
    second = rows.finish(_job(first))
    assert _counts(client, rows) == {original: 5, second: 0}
    later = forget(4, 5)  # the first of them is forgotten already
    assert _counts(client, rows) == {original: 6, second: 1}
    third = rows.finish(_job(later))
    assert _counts(client, rows) == {original: 6, second: 1, third: 0}


def test_pairs_of_other_splits_and_of_withdrawn_requests_do_not_count(
    client: TestClient, rows: Rows, forget: Forget
) -> None:
    original = rows.version()
    forget(0, "val-0", "test-0")
    withdrawn = forget(1, 2)
    assert _counts(client, rows) == {original: 3}
    client.delete(f"/v1/deletion-requests/{withdrawn['request_id']}")
    assert _counts(client, rows) == {original: 1}


def test_a_training_that_left_pairs_out_does_not_know_them(
    client: TestClient, rows: Rows, forget: Forget
) -> None:
    forget(0, 1)
    training = rows.training()
    lease = rows.claim(training)
    during = forget(1, 2)
    trained = rows.finish(training, lease)
    assert _counts(client, rows) == {trained: 1}
    after = client.get(f"/v1/deletion-requests/{during['request_id']}").json()
    unlearned = rows.finish(_job(after, 1))
    assert _counts(client, rows) == {trained: 1, unlearned: 0}


def test_a_pair_counts_for_whoever_asked_for_more_than_a_version_forgot(
    client: TestClient, rows: Rows, forget: Forget
) -> None:
    original = rows.version()
    second = rows.finish(_job(forget(0, 1, method="multidelete")))
    stricter = forget(1, scope="full", method="retrain", params={})
    assert _counts(client, rows) == {original: 2, second: 1}
    third = rows.finish(_job(stricter))
    assert _counts(client, rows) == {original: 2, second: 1, third: 0}


def test_a_pair_forgotten_for_another_request_counts_no_more(
    client: TestClient, rows: Rows, forget: Forget
) -> None:
    original, other = rows.version(), rows.version()
    request = forget(0, 1, versions=[original])
    second = rows.finish(_job(request))
    forget(1, 2, versions=[other])  # on the other lineage; of its pairs `second` knows one
    counts = _counts(client, rows)
    assert counts == {original: 3, other: 3, second: 1}


def test_next_step_follows_the_state_of_the_lineage(
    client: TestClient, rows: Rows, forget: Forget
) -> None:
    original = rows.version()
    assert _seen(client, rows)[original]["next_step"] is None
    request = forget(0)
    said = _seen(client, rows)[original]["next_step"]
    assert "has not forgotten 1 training pair that" in said
    assert f"Wait for job {_job(request)}" in said
    newer = rows.finish(_job(request))
    seen = _seen(client, rows)
    assert f"Use version {newer}" in seen[original]["next_step"]
    retire = seen[original]["next_step"].split("(POST ")[1].split(")")[0]
    assert seen[newer]["next_step"] is None
    assert client.post(retire).status_code == 200
    seen = _seen(client, rows)
    assert (seen[original]["contains_deleted"], seen[original]["next_step"]) == (1, None)


def test_an_upload_on_deleted_pairs_says_what_to_do_and_that_works(
    client: TestClient, rows: Rows, forget: Forget, upload: Make
) -> None:
    forget(0, 1)
    model = {"model_id": rows.model_id}
    version = upload(model, dataset_id=rows.dataset_id, evaluate=False)
    assert (version["status"], version["contains_deleted"]) == ("ready", 2)
    said = version["next_step"]
    assert "has not forgotten 2 training pairs" in said
    assert "POST /v1/deletion-requests" in said
    assert f"versions [{version['version_id']!r}]" in said
    request = forget(0, 1, versions=[version["version_id"]])
    unlearned = rows.finish(_job(request))
    assert _counts(client, rows) == {version["version_id"]: 2, unlearned: 0}


def test_an_upload_says_so_before_its_files_are_sent(
    client: TestClient, rows: Rows, forget: Forget
) -> None:
    forget(0)
    url = f"/v1/models/{rows.model_id}/versions"
    begun = client.post(url, json={"source": "upload", "dataset_id": rows.dataset_id}).json()
    assert begun["contains_deleted"] == 1
    assert "once its upload is finalized" in begun["next_step"]
    apart = client.post(url, json={"source": "upload"}).json()
    assert (apart["contains_deleted"], apart["next_step"]) == (0, None)


def test_a_list_of_versions_takes_as_many_statements_as_one_version(
    client: TestClient, rows: Rows, forget: Forget, app: FastAPI
) -> None:
    rows.version()
    forget(0)
    url = f"/v1/models/{rows.model_id}/versions"
    statements: list[str] = []
    event.listen(
        app.state.database.engine,
        "before_cursor_execute",
        lambda *values: statements.append(values[2]),
    )

    def spent() -> int:
        statements.clear()
        assert client.get(url).status_code == 200
        return len(statements)

    alone = spent()
    assert alone > 0
    for _ in range(5):
        rows.version()
    assert spent() == alone


def test_going_back_to_the_release_before_restores_what_the_ledger_says(
    rows: Rows, forget: Forget, upload: Make, database: Database, database_url: str
) -> None:
    original = rows.version()
    forget(0)
    version = upload({"model_id": rows.model_id}, dataset_id=rows.dataset_id, evaluate=False)
    command.downgrade(migrations.configuration(database_url), "0007")
    with database.transaction() as session:
        query = text("SELECT version_id, contains_deleted FROM versions")
        kept = {row.version_id: row.contains_deleted for row in session.execute(query)}
    assert kept == {original: 0, version["version_id"]: 1}
