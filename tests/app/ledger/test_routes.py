"""The log over HTTP: enough for an outsider to check all of it."""

import base64
import json

import pytest
from fastapi.testclient import TestClient

from app.core.db import Database
from app.ledger import log, merkle
from app.ledger.records import RequestWithdrawn
from app.ledger.tree_head import signed_by, verify_note


@pytest.fixture
def leaves(database: Database) -> list[bytes]:
    """Give the bytes of the 13 leaves of a log."""
    records = [RequestWithdrawn(request_id=f"req_{number}") for number in range(13)]
    with database.transaction() as session:
        log.append_all(session, records)
    return [record.body() for record in records]


def raw(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def test_an_outsider_can_rebuild_the_root_from_the_entries(
    client: TestClient, leaves: list[bytes]
) -> None:
    head = client.get("/v1/ledger/head").json()
    key = client.get("/v1/ledger/public-key").text
    signed = verify_note(head["note"], key, head["origin"])
    assert (signed.size, signed.root) == (13, raw(head["root"]))
    assert signed_by(head["note"]) == (head["origin"], [head["key_id"]])
    bodies: list[bytes] = []
    while len(bodies) < head["size"]:
        path = f"/v1/ledger/entries?start={len(bodies)}&limit=5"
        page = client.get(path).json()
        assert page["size"] == 13
        bodies += [entry["leaf"].encode() for entry in page["items"]]
    assert bodies == leaves
    assert merkle.root_hash([merkle.leaf_hash(body) for body in bodies]) == signed.root


def test_an_entry_says_what_it_is(client: TestClient, leaves: list[bytes]) -> None:
    [entry] = client.get("/v1/ledger/entries?start=3&limit=1").json()["items"]
    assert (entry["leaf_index"], entry["kind"]) == (3, "request_withdrawn")
    assert entry["subject"] == json.loads(entry["leaf"])["request_id"] == "req_3"
    assert raw(entry["leaf_hash"]) == merkle.leaf_hash(leaves[3])


def test_inclusion_proofs_verify(client: TestClient, leaves: list[bytes]) -> None:
    for size in (1, 7, 13):
        for leaf_index in range(size):
            path = f"/v1/ledger/proof/inclusion?leaf_index={leaf_index}&size={size}"
            proof = client.get(path).json()
            leaf = merkle.leaf_hash(leaves[leaf_index])
            assert raw(proof["leaf_hash"]) == leaf
            hashes = [raw(one) for one in proof["hashes"]]
            merkle.verify_inclusion(leaf_index, size, leaf, hashes, raw(proof["root"]))


def test_consistency_proofs_verify(client: TestClient, leaves: list[bytes]) -> None:
    hashed = [merkle.leaf_hash(body) for body in leaves]
    for first, second in ((0, 13), (1, 2), (3, 7), (8, 13), (13, 13)):
        path = f"/v1/ledger/proof/consistency?first={first}&second={second}"
        proof = client.get(path).json()
        roots = raw(proof["first_root"]), raw(proof["second_root"])
        assert roots == (merkle.root_hash(hashed[:first]), merkle.root_hash(hashed[:second]))
        hashes = [raw(one) for one in proof["hashes"]]
        merkle.verify_consistency(first, second, *roots, hashes)


@pytest.mark.parametrize(
    ("path", "status", "problem", "parameter"),
    [
        ("proof/inclusion?leaf_index=13&size=13", 404, "ledger-no-such-leaf", "leaf_index"),
        ("proof/inclusion?leaf_index=0&size=14", 422, "ledger-no-such-size", "size"),
        ("proof/consistency?first=0&second=14", 422, "ledger-no-such-size", "second"),
        ("proof/consistency?first=5&second=4", 422, "ledger-no-such-size", "first"),
        ("proof/consistency?second=4", 422, "invalid", "first"),
        ("proof/inclusion?leaf_index=-1&size=3", 422, "invalid", "leaf_index"),
        ("proof/inclusion?leaf_index=0&size=9223372036854775808", 422, "invalid", "size"),
        ("proof/inclusion?size=3", 422, "invalid", "leaf_index"),
        ("entries?limit=201", 422, "invalid", "limit"),
        ("entries?start=x", 422, "invalid", "start"),
    ],
)
def test_what_the_log_does_not_have_is_a_problem(
    client: TestClient, leaves: list[bytes], path: str, status: int, problem: str, parameter: str
) -> None:
    response = client.get(f"/v1/ledger/{path}")
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"].endswith(f"/{problem}")
    (error,) = response.json()["errors"]
    assert error["parameter"] == parameter
    assert error["detail"]


def test_the_largest_start_has_no_entries(client: TestClient, leaves: list[bytes]) -> None:
    page = client.get(f"/v1/ledger/entries?start={2**63 - 1}").json()
    assert page == {"size": 13, "items": []}


def test_the_public_key_needs_no_token(client: TestClient) -> None:
    response = client.get("/v1/ledger/public-key", headers={"Authorization": ""})
    assert response.status_code == 200
    assert response.text.startswith("-----BEGIN PUBLIC KEY-----\n")
    assert response.headers["content-type"].startswith("text/plain")


def test_the_head_of_an_empty_log_is_signed(client: TestClient) -> None:
    head = client.get("/v1/ledger/head").json()
    assert (head["size"], raw(head["root"])) == (0, merkle.EMPTY_ROOT)
