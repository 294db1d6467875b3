"""What a request counts as forgotten before: on the lineages that it reaches, when it is accepted."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi.testclient import TestClient
from httpx import Response

from app.core.db import Database
from app.ledger.log import entries
from tests.app.deletions.deletion_rows import TRAIN, Rows

Post = Callable[..., Response]
Read = Callable[[str], dict[str, Any]]


def _counted(answer: Response) -> int:
    assert answer.status_code == 202, answer.text
    return int(answer.json()["already_forgotten_count"])


def test_pairs_of_an_earlier_request_count_whether_it_is_met_or_not(post: Post, rows: Rows) -> None:
    rows.version()
    first = post(0, 1).json()
    assert _counted(post(1, 2)) == 1
    rows.finish(first["jobs"][0]["job_id"])
    assert _counted(post(0, 2, 3)) == 2


def test_the_count_stays_as_it_was_when_the_earlier_request_is_withdrawn(
    client: TestClient, post: Post, read: Read, rows: Rows
) -> None:
    rows.version()
    first = post(0).json()["request_id"]
    second = post(0, method="finetune").json()
    client.delete(f"/v1/deletion-requests/{first}")
    assert read(second["request_id"])["already_forgotten_count"] == 1


def test_pairs_of_a_withdrawn_request_do_not_count(
    client: TestClient, post: Post, rows: Rows
) -> None:
    rows.version()
    client.delete(f"/v1/deletion-requests/{post(0).json()['request_id']}")
    assert _counted(post(0)) == 0


def test_pairs_count_only_where_every_lineage_was_asked_to_forget_them(
    post: Post, rows: Rows
) -> None:
    one, other = rows.version(), rows.version()
    assert _counted(post(0, versions=[one])) == 0
    assert _counted(post(0, versions=[other])) == 0
    assert _counted(post(0)) == 1
    rows.version()
    assert _counted(post(0)) == 0


def test_pairs_asked_for_in_a_narrower_scope_do_not_count(post: Post, rows: Rows) -> None:
    rows.version()
    post(0)
    assert _counted(post(0, method="retrain", scope="full")) == 0
    assert _counted(post(0)) == 1


def test_pairs_that_nothing_learned_never_count(client: TestClient, post: Post, rows: Rows) -> None:
    assert [_counted(post(0)) for _ in range(2)] == [0, 0]
    rows.version()
    body = {"dataset_id": rows.dataset_id, "targets": {"pair_ids": ["test-0", "val-0"]}}
    for _ in range(2):
        answer = client.post("/v1/deletion-requests", json=body)
        assert (_counted(answer), answer.json()["not_trained_count"]) == (0, 2)


def test_pairs_that_a_running_training_was_asked_to_forget_count(post: Post, rows: Rows) -> None:
    rows.claim(rows.training())
    assert [_counted(post(0)) for _ in range(2)] == [0, 1]


def test_however_many_come_at_once_only_the_first_in_the_ledger_counts_nothing(
    post: Post, rows: Rows, database: Database
) -> None:
    rows.version()
    with ThreadPoolExecutor(6) as clients:
        answers = list(clients.map(lambda _: post(0), range(6)))
    counted = {answer.json()["request_id"]: _counted(answer) for answer in answers}
    with database.transaction() as session:
        order = [leaf.subject for leaf in entries(session, 0, 10) if leaf.subject in counted]
    assert [counted[request_id] for request_id in order] == [0, 1, 1, 1, 1, 1]


def test_however_many_come_at_once_enough_training_pairs_are_left(post: Post, rows: Rows) -> None:
    rows.version()
    with ThreadPoolExecutor(5) as clients:
        answers = list(clients.map(lambda n: post(*range(4 * n, 4 * n + 4)), range(TRAIN // 4)))
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [202, 202, 202, 202, 422]
