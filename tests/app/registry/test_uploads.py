"""Uploading a checkpoint: what is accepted, what is refused, and that nothing of that is kept."""

import base64
import hashlib
import json
import pickle
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from safetensors.numpy import save
from sqlalchemy import text

from app.core.db import Database

Make = Callable[..., dict[str, Any]]


def begin(client: TestClient, model: dict[str, Any], **members: Any) -> str:
    """Begin an upload and return the version's URL."""
    url = f"/v1/models/{model['model_id']}/versions"
    answer = client.post(url, json={"source": "upload", **members})
    assert answer.status_code == 201, answer.text
    assert answer.headers["Location"] == f"{url}/{answer.json()['version_id']}"
    return answer.headers["Location"]


def leaves(database: Database, kind: str) -> list[dict[str, Any]]:
    with database.transaction() as session:
        query = text("SELECT body FROM ledger_leaves WHERE kind = :kind ORDER BY leaf_index")
        return [json.loads(body) for body in session.scalars(query, {"kind": kind})]


def stored(app: FastAPI) -> set[str]:
    root = app.state.settings.data_dir / "storage"
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_uploaded_checkpoint_becomes_a_version_and_a_leaf(
    client: TestClient,
    app: FastAPI,
    upload: Make,
    checkpoint_files: dict[str, bytes],
    database: Database,
) -> None:
    version = upload()
    digests = {path: hashlib.sha256(body).hexdigest() for path, body in checkpoint_files.items()}
    sums = "".join(f"{digests[path]}  {path}\n" for path in sorted(digests))
    address = hashlib.sha256(sums.encode()).hexdigest()
    assert version["status"] == "ready"
    assert version["number"] == 1
    assert version["lineage_id"] == version["version_id"]
    assert version["checkpoint_sha256"] == address
    assert version["weights_sha256"] == digests["model.safetensors"]
    listed = client.get(version["files_url"]).json()
    assert {file["path"]: file["sha256"] for file in listed["files"]} == {
        **digests,
        "SHA256SUMS": address,
    }
    assert client.get(f"{version['files_url']}/SHA256SUMS").text == sums
    assert stored(app) == {f"checkpoints/{address}/{path}" for path in [*digests, "SHA256SUMS"]}
    (leaf,) = leaves(database, "version_registered")
    assert (leaf["version_id"], leaf["checkpoint_sha256"]) == (version["version_id"], address)


def test_finalize_again_is_harmless_and_files_are_fixed_from_then_on(
    client: TestClient, upload: Make, database: Database
) -> None:
    version = upload()
    url = version["files_url"].removesuffix("/files")
    assert client.post(f"{url}/finalize").json() == version
    same = {"checkpoint_sha256": version["checkpoint_sha256"]}
    assert client.post(f"{url}/finalize", json=same).json() == version
    other = client.post(f"{url}/finalize", json={"checkpoint_sha256": "0" * 64})
    assert other.status_code == 409
    late = client.put(f"{url}/files/config.json", content=b"{}")
    assert late.status_code == 409
    assert len(leaves(database, "version_registered")) == 1


def test_checkpoint_of_another_kind_of_model_is_refused_and_the_right_one_then_taken(
    client: TestClient, make_model: Make, checkpoint_files: dict[str, bytes]
) -> None:
    url = begin(client, make_model())
    for path, content in checkpoint_files.items():
        client.put(f"{url}/files/{path}", content=content)
    client.put(f"{url}/files/lethe.json", content=b'{"family": "clip", "task": "retrieval"}')
    refused = client.post(f"{url}/finalize")
    assert refused.status_code == 422
    assert "family 'clip'" in refused.json()["detail"]
    assert client.get(url).json()["status"] != "ready"
    client.put(f"{url}/files/lethe.json", content=checkpoint_files["lethe.json"])
    assert client.post(f"{url}/finalize").status_code == 200


def test_finalize_by_two_at_once_makes_one_version_ready(
    client: TestClient, make_model: Make, checkpoint_files: dict[str, bytes], database: Database
) -> None:
    url = begin(client, make_model())
    for path, content in checkpoint_files.items():
        client.put(f"{url}/files/{path}", content=content)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: client.post(f"{url}/finalize"), range(4)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert len(leaves(database, "version_registered")) == 1


def test_audit_of_an_upload_is_queued_once_when_it_is_ready(
    client: TestClient, upload: Make, make_dataset: Make, database: Database
) -> None:
    version = upload(dataset_id=make_dataset()["dataset_id"])
    client.post(f"{version['files_url'].removesuffix('/files')}/finalize")
    with database.transaction() as session:
        rows = session.execute(text("SELECT kind, input_version_id FROM jobs")).all()
    assert [tuple(row) for row in rows] == [("evaluate", version["version_id"])]


def test_upload_without_audit_queues_nothing(
    client: TestClient, upload: Make, make_dataset: Make, database: Database
) -> None:
    upload(dataset_id=make_dataset()["dataset_id"], evaluate=False)
    with database.transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM jobs")) == 0


def test_audit_without_a_dataset_is_refused(client: TestClient, make_model: Make) -> None:
    url = f"/v1/models/{make_model()['model_id']}/versions"
    answer = client.post(url, json={"source": "upload", "evaluate": True})
    assert answer.json()["type"].endswith("/no-dataset")


@pytest.mark.parametrize(
    "path",
    [
        "pytorch_model.bin",
        "model.pt",
        "weights.pkl",
        "modeling_evil.py",
        "sub/config.json",
        "../config.json",
        "..%2f..%2fconfig.json",
        "%2fetc%2fpasswd",
        "config.json%00",
        "config.json/",
        "CONFIG.JSON",
        ".hidden",
    ],
)
def test_name_that_is_not_on_the_list_is_refused_and_nothing_is_kept(
    client: TestClient, app: FastAPI, make_model: Make, path: str
) -> None:
    url = begin(client, make_model())
    answer = client.put(f"{url}/files/{path}", content=b"{}")
    assert answer.status_code in (404, 405, 422), answer.text
    assert stored(app) == set()
    assert client.get(f"{url}/files").json()["files"] == []


def _header(**tensor: Any) -> bytes:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **tensor}})
    return struct.pack("<Q", len(header)) + header.encode()


WEIGHTS = save({"a": np.zeros(4, np.float32)})
NOT_WEIGHTS = {
    "empty": b"",
    "pickle": pickle.dumps({"a": [1.0]}),
    "truncated": WEIGHTS[:-1],
    "too long": WEIGHTS + b"\0",
    "huge header": struct.pack("<Q", 2**62) + b"{}",
    "outside": _header(data_offsets=[0, 800]) + b"\0" * 8,
    "no tensor": save({}),
}


@pytest.mark.parametrize("name", NOT_WEIGHTS)
def test_weights_that_are_no_whole_safetensors_file_are_refused(
    client: TestClient, app: FastAPI, make_model: Make, name: str
) -> None:
    url = begin(client, make_model())
    answer = client.put(f"{url}/files/model.safetensors", content=NOT_WEIGHTS[name])
    assert answer.status_code == 422
    assert answer.json()["type"].endswith("/file-refused")
    assert stored(app) == set()


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b"[1]"),
        ("config.json", b"\xff\xfe"),
        ("config.json", b"[" * 100_000),
        ("tokenizer.json", b""),
        ("README.md", b"\xff"),
    ],
)
def test_text_that_is_not_what_its_name_says_is_refused(
    client: TestClient, app: FastAPI, make_model: Make, path: str, content: bytes
) -> None:
    url = begin(client, make_model())
    assert client.put(f"{url}/files/{path}", content=content).status_code == 422
    assert stored(app) == set()


EMPTY_OBJECT = base64.b64encode(hashlib.sha256(b"{}").digest()).decode()
OTHER = base64.b64encode(hashlib.sha256(b"other").digest()).decode()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Repr-Digest": f"sha-256=:{EMPTY_OBJECT}:"}, 201),
        ({"Repr-Digest": f"sha-512=:AAAA:, sha-256=:{EMPTY_OBJECT}:"}, 201),
        ({"Repr-Digest": "sha-512=:AAAA:"}, 201),
        ({"Repr-Digest": f"sha-256={EMPTY_OBJECT}"}, 422),
        ({"Content-Digest": f"SHA-256=:{EMPTY_OBJECT}:"}, 422),
        ({"Repr-Digest": "sha-256=:AAAA:"}, 422),
        (
            {
                "Repr-Digest": f"sha-256=:{EMPTY_OBJECT}:",
                "Content-Digest": f"sha-256=:{OTHER}:",
            },
            422,
        ),
    ],
)
def test_digest_that_cannot_be_read_is_not_passed_over(
    client: TestClient, make_model: Make, headers: dict[str, str], status: int
) -> None:
    url = begin(client, make_model())
    answer = client.put(f"{url}/files/config.json", content=b"{}", headers=headers)
    assert answer.status_code == status, answer.text
    if status == 422:
        named = {error["parameter"] for error in answer.json()["errors"]}
        assert named == {name.lower() for name in headers}
        assert client.get(f"{url}/files").json()["files"] == []


def test_part_of_a_file_is_refused_and_the_file_stays(client: TestClient, make_model: Make) -> None:
    url = begin(client, make_model())
    assert client.put(f"{url}/files/config.json", content=b'{"a": 1}').status_code == 201
    part = {"Content-Range": "bytes 0-1/8"}
    answer = client.put(f"{url}/files/config.json", content=b"{}", headers=part)
    assert answer.status_code == 400
    assert answer.json()["type"].endswith("/malformed")
    assert [file["size"] for file in client.get(f"{url}/files").json()["files"]] == [8]


def test_card_with_a_member_twice_is_refused_and_named(
    client: TestClient, make_model: Make
) -> None:
    url = begin(client, make_model())
    card = b'{"family": "albef", "task": "retrieval", "family": "clip"}'
    answer = client.put(f"{url}/files/lethe.json", content=card)
    assert answer.status_code == 422
    assert answer.json()["type"].endswith("/file-refused")
    assert "family: an object has this member twice" in answer.json()["detail"]


def test_wrong_digest_of_a_file_is_refused_and_nothing_is_kept(
    client: TestClient, app: FastAPI, make_model: Make
) -> None:
    url = begin(client, make_model())
    digest = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    headers = {"Repr-Digest": f"sha-256=:{digest}:"}
    answer = client.put(f"{url}/files/config.json", content=b"{}", headers=headers)
    assert answer.json()["type"].endswith("/digest-mismatch")
    assert stored(app) == set()


def test_file_put_again_takes_the_place_of_the_first(
    client: TestClient, make_model: Make, checkpoint_files: dict[str, bytes]
) -> None:
    url = begin(client, make_model())
    for path, content in {**checkpoint_files, "config.json": b'{"first": 1}'}.items():
        client.put(f"{url}/files/{path}", content=content)
    client.put(f"{url}/files/config.json", content=b'{"second": 2}')
    assert client.post(f"{url}/finalize").status_code == 200
    assert client.get(f"{url}/files/config.json").content == b'{"second": 2}'


def test_checkpoint_that_is_not_whole_cannot_be_finalized(
    client: TestClient, make_model: Make, checkpoint_files: dict[str, bytes]
) -> None:
    url = begin(client, make_model())
    missing = client.post(f"{url}/finalize")
    assert missing.status_code == 422
    assert "lacks model.safetensors, config.json, lethe.json" in missing.json()["detail"]
    for path, content in checkpoint_files.items():
        client.put(f"{url}/files/{path}", content=content)
    wrong = client.post(f"{url}/finalize", json={"checkpoint_sha256": "0" * 64})
    assert wrong.json()["errors"][0]["pointer"] == "#/checkpoint_sha256"
    client.put(f"{url}/files/SHA256SUMS", content=b"0  config.json\n")
    assert "SHA256SUMS" in client.post(f"{url}/finalize").json()["detail"]
    digests = {path: hashlib.sha256(body).hexdigest() for path, body in checkpoint_files.items()}
    sums = "".join(f"{digests[path]}  {path}\n" for path in sorted(digests))
    client.put(f"{url}/files/SHA256SUMS", content=sums.encode())
    assert client.post(f"{url}/finalize").status_code == 200


def test_two_versions_may_have_the_same_weights(
    client: TestClient, app: FastAPI, upload: Make, make_model: Make
) -> None:
    model = make_model()
    first, second = upload(model), upload(model)
    assert first["checkpoint_sha256"] == second["checkpoint_sha256"]
    assert (first["number"], second["number"]) == (1, 2)
    for version in (first, second):
        assert client.get(f"{version['files_url']}/config.json").status_code == 200
    assert not any(path.startswith("uploads/") for path in stored(app))


def test_upload_on_data_with_deleted_pairs_is_flagged(
    client: TestClient, upload: Make, make_dataset: Make, database: Database
) -> None:
    dataset_id = make_dataset()["dataset_id"]
    with database.transaction() as session:
        for name, status in (("one", "completed"), ("two", "completed"), ("three", "cancelled")):
            session.execute(
                text(
                    "INSERT INTO deletion_requests (request_id, dataset_id, status, scope,"
                    " objective, method, update, params, pair_count, named_total,"
                    " already_forgotten_count, not_trained_count, submitted_by, deadline)"
                    " VALUES (:name, :dataset, :status, 'association', 'decouple', 'retrain',"
                    " 'all', '{}', 1, 1, 0, 0, 'tok', now())"
                ),
                {"name": name, "dataset": dataset_id, "status": status},
            )
        for name, pair in (
            ("one", "pair-0"),
            ("one", "pair-1"),
            ("two", "pair-1"),
            ("one", "pair-3"),  # of val: nobody learned from it
            ("three", "pair-2"),  # withdrawn
        ):
            session.execute(
                text("INSERT INTO deletion_request_pairs VALUES (:name, :pair, :dataset)"),
                {"name": name, "pair": pair, "dataset": dataset_id},
            )
    assert upload(dataset_id=dataset_id)["contains_deleted"] == 2


def test_storage_full_while_a_file_comes_is_507_and_nothing_is_kept(
    client: TestClient, app: FastAPI, make_model: Make, small_disk: Path
) -> None:
    """A disk that is really full: the storage lies on a file system of 1 MiB."""
    from app.core.storage import Storage

    app.state.storage = Storage(small_disk.as_uri())
    url = begin(client, make_model())
    weights = save({"a": np.zeros(1_000_000, np.float32)})
    answer = client.put(f"{url}/files/model.safetensors", content=weights)
    assert answer.status_code == 507
    assert answer.json()["type"].endswith("/storage-full")
    assert [path for path in small_disk.rglob("*") if path.is_file()] == []
    assert client.get(f"{url}/files").json()["files"] == []
