"""Reference models are asked for in a request, and are made by the job that meets it."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from httpx import Response
from sqlalchemy import text

from app.ledger.log import leaves_about
from tests.app.deletions.deletion_rows import Rows

Post = Callable[..., Response]
Read = Callable[[str], dict[str, Any]]


def asking(count: Any) -> dict[str, Any]:
    return {"audit": {"reference_models": count}}


def job_of(request: dict[str, Any]) -> str:
    return str(request["jobs"][-1]["job_id"])


@pytest.fixture
def made_by(client: TestClient) -> Callable[[str], int]:
    """Give a function that reads how many reference models a job makes."""
    return lambda job_id: int(client.get(f"/v1/jobs/{job_id}").json()["spec"]["reference_models"])


@pytest.mark.parametrize("count", [0, 4, 64])
def test_a_number_is_kept_with_the_request_its_job_and_its_leaf(
    post: Post, rows: Rows, read: Read, made_by: Callable[[str], int], count: int
) -> None:
    rows.version()
    request = post(0, **asking(count)).json()
    assert request["audit"] == {"reference_models": count}
    assert read(request["request_id"]) == request
    assert made_by(job_of(request)) == count
    with rows.database.transaction() as session:
        [leaf] = leaves_about(session, [request["request_id"]], ["request_received"])
        assert f'"reference_models":{count},'.encode() in bytes(leaf.body)


def test_a_request_that_says_nothing_asks_for_none(post: Post, rows: Rows) -> None:
    rows.version()
    assert post(0).json()["audit"] == {"reference_models": 0}


@pytest.mark.parametrize("count", [-1, 1, 3, 65, 4.5, "4", True, None])
def test_a_number_that_cannot_be_is_refused_where_it_stands(
    post: Post, rows: Rows, count: Any
) -> None:
    rows.version()
    answer = post(0, **asking(count))
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert error["pointer"] == "#/audit/reference_models"


def test_the_largest_number_counts_for_a_shared_job(
    post: Post, rows: Rows, made_by: Callable[[str], int]
) -> None:
    rows.version()
    found = [post(number, **asking(count)).json() for number, count in enumerate((0, 16, 4))]
    [job_id] = {job_of(request) for request in found}
    assert made_by(job_id) == 16
    assert [request["audit"]["reference_models"] for request in found] == [0, 16, 4]


def test_a_job_that_was_queued_by_an_older_service_is_joined_and_raised(
    post: Post, rows: Rows, made_by: Callable[[str], int]
) -> None:
    rows.version()
    job_id = job_of(post(0).json())
    with rows.database.transaction() as session:
        session.execute(text("UPDATE jobs SET spec = spec - 'reference_models'"))
    assert job_of(post(1).json()) == job_id
    assert job_of(post(2, **asking(8)).json()) == job_id
    assert made_by(job_id) == 8


def test_a_claimed_job_stays_as_it_is(
    post: Post, rows: Rows, made_by: Callable[[str], int]
) -> None:
    rows.version()
    first = job_of(post(0).json())
    rows.claim(first)
    second = job_of(post(1, **asking(8)).json())
    assert (made_by(first), made_by(second)) == (0, 8)


def test_a_withdrawn_request_leaves_a_waiting_job_with_what_others_ask_for(
    client: TestClient, post: Post, rows: Rows, made_by: Callable[[str], int]
) -> None:
    rows.version()
    few, many = post(0, **asking(4)).json(), post(1, **asking(32)).json()
    assert made_by(job_of(few)) == 32
    assert client.delete(f"/v1/deletion-requests/{many['request_id']}").status_code == 204
    assert made_by(job_of(few)) == 4


def test_requests_that_waited_for_a_training_share_a_job_with_the_largest_number(
    post: Post, rows: Rows, read: Read, made_by: Callable[[str], int]
) -> None:
    training = rows.training()
    lease = rows.claim(training)
    requests = [post(number, **asking(count)).json() for number, count in enumerate((0, 8))]
    rows.finish(training, lease)
    [job_id] = {job_of(read(request["request_id"])) for request in requests}
    assert made_by(job_id) == 8


def test_another_try_makes_what_the_request_asks_for(
    client: TestClient, post: Post, rows: Rows, made_by: Callable[[str], int]
) -> None:
    rows.version()
    request = post(0, **asking(8)).json()
    rows.fail(job_of(request))
    again = client.post(f"/v1/deletion-requests/{request['request_id']}/retry").json()
    assert job_of(again) != job_of(request)
    assert made_by(job_of(again)) == 8


def test_where_nothing_had_to_be_unlearned_report_and_certificate_say_that_none_were_made(
    client: TestClient, post: Post
) -> None:
    request = post(0, **asking(8)).json()
    assert request["status"] == "completed"
    place = f"/v1/audit/requests/{request['request_id']}"
    said = " ".join(client.get(f"{place}/report").json()["summary"])
    assert "attack on each pair by 8 comparison models" in said
    assert "nothing had to be unlearned, none were made" in said
