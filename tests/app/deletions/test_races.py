"""A request that meets the start or end of a training, or of an upload, is never overlooked.

Each test runs one of the two just when the other has looked around and not written yet.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import pytest
from fastapi.testclient import TestClient
from httpx import Response
from sqlalchemy import text

from app.core.db import Database
from app.deletions import intake, lineage
from app.jobs.start import start
from app.registry import uploads
from tests.app.deletions.deletion_rows import Rows

T = TypeVar("T")
Post = Callable[..., Response]
Read = Callable[[str], dict[str, Any]]
Meanwhile = Callable[[Callable[[], T]], "Future[T]"]


@pytest.fixture
def meanwhile(database: Database) -> Iterator[Meanwhile[Any]]:
    """Give a function that begins an action and returns when it has ended or waits for a lock."""
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )

    def begin(act: Callable[[], T]) -> "Future[T]":
        future = pool.submit(act)
        while not future.done():
            with database.transaction() as session:
                if session.scalar(waiting):
                    break
        return future

    with ThreadPoolExecutor(1) as pool:
        yield begin


@pytest.fixture
def before_writing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Give a function that has an action run when a request was resolved and is to be written."""
    record = intake.record

    def set_up(act: Callable[[], None]) -> None:
        def act_and_record(*values: Any) -> Any:
            act()
            return record(*values)

        monkeypatch.setattr(intake, "record", act_and_record)

    return set_up


def test_a_training_claimed_while_a_request_is_filed_leaves_its_pairs_out(
    post: Post,
    rows: Rows,
    meanwhile: Meanwhile[Any],
    before_writing: Callable[[Callable[[], None]], None],
) -> None:
    trainings: list[str] = []
    claims: list[Future[Any]] = []

    def enqueue_and_claim() -> None:
        trainings.append(rows.training())
        claims.append(meanwhile(lambda: rows.claim(trainings[0])))

    before_writing(enqueue_and_claim)
    request = post(0).json()
    assert claims[0].result(10) is not None
    with rows.database.transaction() as session:
        left_out = lineage.left_out(session, trainings[0])
    assert left_out == {request["request_id"]: ["train-0"]}
    assert request["status"] == "completed"


def test_a_request_filed_while_a_training_is_claimed_waits_for_its_version(
    post: Post, read: Read, rows: Rows, meanwhile: Meanwhile[Response]
) -> None:
    training = rows.training()
    with rows.database.transaction() as session:
        lease = start(session, rows.signer, training, "test", seconds=60, max_attempts=3)
        filing = meanwhile(lambda: post(0))
        assert not filing.done()
    request = filing.result(10).json()
    assert [job["relation"] for job in request["jobs"]] == ["awaits"]
    rows.finish(training, lease)
    waiting = read(request["request_id"])
    assert waiting["status"] == "pending"
    assert [job["relation"] for job in waiting["jobs"]] == ["awaits", "forget"]


def test_a_training_that_ends_while_a_request_is_filed_is_unlearned(
    post: Post,
    read: Read,
    rows: Rows,
    meanwhile: Meanwhile[Any],
    before_writing: Callable[[Callable[[], None]], None],
) -> None:
    training = rows.training()
    lease = rows.claim(training)
    ends: list[Future[Any]] = []
    before_writing(lambda: ends.append(meanwhile(lambda: rows.finish(training, lease))))
    request = post(0).json()
    version_id = ends[0].result(10)
    after = read(request["request_id"])
    assert after["status"] == "pending"
    assert [job["relation"] for job in after["jobs"]] == ["awaits", "forget"]
    assert after["jobs"][1]["lineage_id"] == version_id


def test_an_upload_that_ends_while_a_request_is_filed_is_flagged(
    client: TestClient,
    post: Post,
    rows: Rows,
    upload: Callable[..., dict[str, Any]],
    meanwhile: Meanwhile[Any],
    before_writing: Callable[[Callable[[], None]], None],
) -> None:
    uploads: list[Future[Any]] = []
    model = {"model_id": rows.model_id}
    before_writing(
        lambda: uploads.append(
            meanwhile(lambda: upload(model, dataset_id=rows.dataset_id, evaluate=False))
        )
    )
    request = post(0).json()
    version = uploads[0].result(10)
    assert request["jobs"] == []
    assert version["contains_deleted"] == 1
    assert rows.leaves(version["version_id"]) == ["version_registered"]


def test_a_request_filed_while_an_upload_ends_reaches_its_version(
    post: Post,
    rows: Rows,
    upload: Callable[..., dict[str, Any]],
    meanwhile: Meanwhile[Response],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = uploads.count_still_known
    filings: list[Future[Response]] = []

    def count_and_file(*values: Any) -> int:
        found = count(*values)
        filings.append(meanwhile(lambda: post(0)))
        return found

    monkeypatch.setattr(uploads, "count_still_known", count_and_file)
    model = {"model_id": rows.model_id}
    version = upload(model, dataset_id=rows.dataset_id, evaluate=False)
    request = filings[0].result(10).json()
    assert version["contains_deleted"] == 0
    assert [job["lineage_id"] for job in request["jobs"]] == [version["lineage_id"]]
    assert request["status"] == "pending"


@pytest.fixture
def while_filing(
    meanwhile: Meanwhile[Any], before_writing: Callable[[Callable[[], None]], None]
) -> Callable[[Callable[[], Any]], "list[Future[Any]]"]:
    """Give a function that has an action begin when the next request was resolved, once."""

    def set_up(act: Callable[[], Any]) -> "list[Future[Any]]":
        begun: list[bool] = []
        actions: list[Future[Any]] = []

        def once() -> None:
            if not begun:
                begun.append(True)
                actions.append(meanwhile(act))

        before_writing(once)
        return actions

    return set_up


WhileFiling = Callable[[Callable[[], Any]], "list[Future[Any]]"]


def test_of_two_requests_at_once_the_second_counts_what_the_first_asked_for(
    post: Post, rows: Rows, while_filing: WhileFiling
) -> None:
    rows.version()
    second = while_filing(lambda: post(1, 2))
    first = post(0, 1).json()
    later = second[0].result(10).json()
    assert (first["already_forgotten_count"], later["already_forgotten_count"]) == (0, 1)
    assert first["submitted_time"] < later["submitted_time"]


def test_two_requests_at_once_cannot_name_the_whole_training_set_together(
    post: Post, rows: Rows, while_filing: WhileFiling
) -> None:
    rows.version()
    second = while_filing(lambda: post(*range(10, 20)))
    first = post(*range(10))
    refused = second[0].result(10)
    assert (first.status_code, refused.status_code) == (202, 422)
    assert refused.json()["type"].endswith("/whole-training-set")
    pending = [first.json()["request_id"]]
    assert refused.json()["pending_requests"] == {"count": 1, "first": pending}
    assert pending[0] in refused.json()["detail"]


def test_a_version_that_is_retired_while_a_request_is_filed_is_not_waited_for(
    client: TestClient, post: Post, read: Read, rows: Rows, while_filing: WhileFiling
) -> None:
    place = f"/v1/models/{rows.model_id}/versions/{rows.version()}/retire"
    retired = while_filing(lambda: client.post(place))
    request = post(0).json()
    assert retired[0].result(10).status_code == 200
    assert read(request["request_id"])["status"] == "completed"
    assert client.get(f"/v1/jobs/{request['jobs'][0]['job_id']}").json()["status"] == "cancelled"
