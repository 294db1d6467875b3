"""Requests about one dataset that many callers file at once."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.deletions.intake import shared_spec
from app.deletions.schemas import NewRequest
from app.jobs.service import enqueue_unlearning
from app.ledger import log, merkle
from tests.app.deletions.deletion_rows import Rows

Post = Callable[..., Any]
CLIENTS = 8


def at_once(*acts: Callable[[], Any]) -> list[Any]:
    """Run all at the same time, each in a thread of its own; return the answers in order."""
    together = threading.Barrier(len(acts))

    def run(act: Callable[[], Any]) -> Any:
        together.wait(10)
        return act()

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(run, acts))


def accepted(answers: list[Any]) -> list[dict[str, Any]]:
    """Return the requests in the order in which they were accepted."""
    assert [answer.status_code for answer in answers] == [202] * len(answers), answers
    return sorted((answer.json() for answer in answers), key=lambda one: one["submitted_time"])


def leaves_are_whole(rows: Rows, kinds: dict[str, int]) -> None:
    """Check that the log has no gap, that its tree is the one of its leaves, and what they say."""
    leaf = text("SELECT leaf_index, leaf_hash, kind FROM ledger_leaves ORDER BY leaf_index")
    with rows.database.transaction() as session:
        found = session.execute(leaf).all()
        assert [row.leaf_index for row in found] == list(range(log.size(session)))
        hashes = [bytes(row.leaf_hash) for row in found]
        assert log.root(session, len(found)) == merkle.root_hash(hashes)
    for kind, times in kinds.items():
        assert sum(row.kind == kind for row in found) == times


def test_requests_are_accepted_after_any_number_of_readings_and_refusals(
    post: Post, client: TestClient, rows: Rows
) -> None:
    rows.version()
    for number in range(4):
        request = accepted([post(number)])[0]
        for _ in range(8):  # as a caller that waits, and as often as a driver prepares a statement
            assert client.get(f"/v1/jobs/{request['jobs'][0]['job_id']}").status_code == 200
        assert client.get("/v1/jobs/job_unknown").status_code == 404


def test_of_many_requests_for_one_pair_only_the_first_one_counts_it_as_new(
    post: Post, rows: Rows
) -> None:
    rows.version()
    requests = accepted(at_once(*[lambda: post(0)] * CLIENTS))
    counts = [request["already_forgotten_count"] for request in requests]
    assert counts == [0] + [1] * (CLIENTS - 1)
    assert len({request["submitted_time"] for request in requests}) == CLIENTS
    jobs = {job["job_id"] for request in requests for job in request["jobs"]}
    assert len(jobs) == 1
    leaves_are_whole(rows, {"request_received": CLIENTS})
    rows.finish(jobs.pop())
    leaves_are_whole(rows, {"request_completed": CLIENTS})


def test_many_requests_cannot_name_the_whole_training_set_together(post: Post, rows: Rows) -> None:
    rows.version()
    answers = at_once(*[lambda n=n: post(*range(5 * n, 5 * n + 5)) for n in range(4)])
    refused = [answer for answer in answers if answer.status_code == 422]
    assert sorted(answer.status_code for answer in answers) == [202] * 3 + [422]
    assert refused[0].json()["type"].endswith("/whole-training-set")
    leaves_are_whole(rows, {"request_received": 3})


def test_one_key_makes_one_request(client: TestClient, post: Post, rows: Rows) -> None:
    rows.version()
    answers = at_once(*[lambda: post(3, headers={"Idempotency-Key": "k"})] * CLIENTS)
    made = [answer for answer in answers if answer.status_code == 202]
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert len({answer.text for answer in made}) == 1
    assert len(client.get("/v1/deletion-requests").json()["items"]) == 1
    leaves_are_whole(rows, {"request_received": 1})


def test_overlapping_requests_beside_withdrawals_and_a_retirement_never_wait_for_each_other_forever(
    client: TestClient, post: Post, rows: Rows
) -> None:
    versions = [rows.version(), rows.version()]
    begun = accepted(at_once(*[lambda n=n: post(n, n + 1) for n in range(4)]))
    retire = f"/v1/models/{rows.model_id}/versions/{versions[1]}/retire"
    answers = at_once(
        *[
            lambda one=one: client.delete(f"/v1/deletion-requests/{one['request_id']}")
            for one in begun[:3]
        ],
        lambda: client.post(retire),
        lambda: post(1, 2, versions=versions),
        lambda: post(2, 1, versions=versions[:1]),
        lambda: post(0, 3),
        lambda: post(3, 0, audit={"reference_models": 4}),
    )
    statuses = [answer.status_code for answer in answers]
    assert statuses[:4] == [204] * 3 + [200]
    assert statuses[4] in (202, 409)  # it lists the version that is retired
    assert statuses[5:] == [202] * 3
    received = 4 + 3 + (statuses[4] == 202)
    leaves_are_whole(
        rows, {"request_received": received, "request_withdrawn": 3, "version_retired": 1}
    )


def test_requests_beside_a_manifest_that_is_put_are_refused_or_find_all_of_its_pairs(
    client: TestClient,
    make_dataset: Callable[..., dict[str, Any]],
    make_manifest: Callable[..., bytes],
) -> None:
    dataset_id = make_dataset(count=0)["dataset_id"]
    body = {"dataset_id": dataset_id, "targets": {"pair_ids": ["pair-0", "pair-39"]}}

    def put() -> Any:
        headers = {"Content-Type": "application/jsonl"}
        content = make_manifest(40)
        while True:  # it does not wait for a request that is looking at the dataset
            answer = client.put(
                f"/v1/datasets/{dataset_id}/pairs", content=content, headers=headers
            )
            if answer.status_code != 409:
                return answer

    answers = at_once(
        put,
        *[lambda: client.post("/v1/deletion-requests", json=body)] * 5,
    )
    assert answers[0].status_code == 200
    for answer in answers[1:]:
        assert answer.status_code in (202, 409), answer.text
        if answer.status_code == 202:
            assert answer.json()["pair_count"] == 2
        else:
            assert answer.json()["type"].endswith("/dataset-not-ready")


def test_a_request_joins_one_of_two_jobs_that_wait_on_a_lineage(
    app: FastAPI, post: Post, rows: Rows
) -> None:
    version_id = rows.version()
    first = post(0).json()["jobs"][0]["job_id"]
    shared = shared_spec(
        NewRequest.model_validate({"dataset_id": rows.dataset_id, "targets": {"pair_ids": ["x"]}})
    )
    with rows.database.transaction() as session:  # as a retry adds one
        second = enqueue_unlearning(
            session,
            app.state.queue,
            model_id=rows.model_id,
            dataset_id=rows.dataset_id,
            lineage_id=version_id,
            spec={**shared, "reference_models": 0},
        ).job_id
    request = post(1).json()
    assert [job["job_id"] for job in request["jobs"]] == [max(first, second)]
    links = text("SELECT job_id FROM deletion_request_jobs WHERE request_id = :request_id")
    with rows.database.transaction() as session:
        linked = list(session.scalars(links, {"request_id": request["request_id"]}))
    assert linked == [max(first, second)]
