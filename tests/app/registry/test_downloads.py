"""Downloading files: ranges, conditions, digests, and the record of it in the ledger."""

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.core.db import Database

Make = Callable[..., dict[str, Any]]


def leaves(database: Database, kind: str) -> list[dict[str, Any]]:
    with database.transaction() as session:
        query = text("SELECT body FROM ledger_leaves WHERE kind = :kind ORDER BY leaf_index")
        return [json.loads(body) for body in session.scalars(query, {"kind": kind})]


def test_download_has_digest_and_strong_tag(
    client: TestClient, upload: Make, checkpoint_files: dict[str, bytes]
) -> None:
    content = checkpoint_files["model.safetensors"]
    sha256 = hashlib.sha256(content)
    answer = client.get(f"{upload()['files_url']}/model.safetensors")
    assert answer.content == content
    assert answer.headers["ETag"] == f'"{sha256.hexdigest()}"'
    digest = base64.b64encode(sha256.digest()).decode()
    assert answer.headers["Repr-Digest"] == f"sha-256=:{digest}:"
    assert answer.headers["Content-Length"] == str(len(content))
    assert answer.headers["Accept-Ranges"] == "bytes"


def test_head_says_what_get_says_without_the_body(client: TestClient, upload: Make) -> None:
    url = f"{upload()['files_url']}/model.safetensors"
    head, get = client.head(url), client.get(url)
    assert (head.status_code, head.content) == (200, b"")
    varying = {"x-request-id"}
    assert {name: value for name, value in head.headers.items() if name not in varying} == {
        name: value for name, value in get.headers.items() if name not in varying
    }


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=3-5", 3, 6),
        ("bytes=10-", 10, None),
        ("bytes=-4", -4, None),
        ("bytes=-999999", 0, None),
        ("bytes=5-999999", 5, None),
        (f"bytes=5-{'9' * 30}", 5, None),
        (f"bytes=-{'9' * 5000}", 0, None),
        ("bytes=-1", -1, None),
        (f"bytes={'0' * 30}3-{'0' * 30}5", 3, 6),
        ("Bytes= 3-5 , ,", 3, 6),
    ],
)
def test_range_gives_exactly_its_bytes(
    client: TestClient,
    upload: Make,
    checkpoint_files: dict[str, bytes],
    asked: str,
    start: int,
    end: int | None,
) -> None:
    content = checkpoint_files["model.safetensors"]
    url = f"{upload()['files_url']}/model.safetensors"
    answer = client.get(url, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, content[start:end])
    first = start % len(content) if start < 0 else start
    last = first + len(answer.content) - 1
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{len(content)}"
    assert client.head(url, headers={"Range": asked}).status_code == 206


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=18-",
        "bytes=999999-",
        "bytes=-0",
        "bytes=999999-9999999",
        "bytes=99999999999999999999999-",
        f"bytes={'9' * 30}-{'9' * 31}",
        f"bytes={'9' * 5000}-",
    ],
)
def test_range_outside_of_the_file_is_416(client: TestClient, upload: Make, asked: str) -> None:
    url = f"{upload()['files_url']}/config.json"
    answer = client.get(url, headers={"Range": asked})
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == "bytes */18"


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=0-1,3-4",
        "bytes=0-1,99999999999999999999999-",
        "bytes=" + ",".join(f"{start}-{start}" for start in range(0, 1000, 2)),
        "lines=1-2",
        "bytes=5-2",
        f"bytes={'9' * 30}-5",
        "bytes=-",
        "bytes=",
        "bytes=,",
        "bytes=+1-2",
        "bytes=0x1-2",
        "bytes=1 - 2",
        "bytes=--1",
        "bytes 0-1",
        "x",
    ],
)
def test_range_that_is_not_understood_gives_the_whole_file(
    client: TestClient, upload: Make, asked: str
) -> None:
    answer = client.get(f"{upload()['files_url']}/config.json", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, b'{"hidden_size": 2}')


def test_if_range_with_another_tag_gives_the_whole_file(client: TestClient, upload: Make) -> None:
    url = f"{upload()['files_url']}/config.json"
    tag = client.head(url).headers["ETag"]
    for condition, status in ((tag, 206), ('"old"', 200), (f"W/{tag}", 200)):
        headers = {"Range": "bytes=0-1", "If-Range": condition}
        assert client.get(url, headers=headers).status_code == status


@pytest.mark.parametrize(
    ("asked", "status"), [("bytes=-5", 200), ("bytes=-0", 416), ("bytes=0-", 416)]
)
def test_of_an_empty_file_a_range_gives_all_or_nothing(
    client: TestClient, upload: Make, checkpoint_files: dict[str, bytes], asked: str, status: int
) -> None:
    checkpoint_files["README.md"] = b""
    answer = client.get(f"{upload()['files_url']}/README.md", headers={"Range": asked})
    assert answer.status_code == status
    assert (answer.content == b"") is (status == 200)


def test_a_range_outside_of_the_file_counts_only_while_if_range_holds(
    client: TestClient, upload: Make
) -> None:
    url = f"{upload()['files_url']}/config.json"
    head = client.head(url).headers
    dated = head["Last-Modified"]  # of one second may be two files: not strong enough
    for condition, status in ((head["ETag"], 416), ('"old"', 200), (dated, 200)):
        headers = {"Range": f"bytes={'9' * 30}-", "If-Range": condition}
        assert client.get(url, headers=headers).status_code == status


def test_if_none_match_gives_304(client: TestClient, upload: Make) -> None:
    url = f"{upload()['files_url']}/config.json"
    tag = client.head(url).headers["ETag"]
    for condition in (tag, f'"a", {tag}', "*"):
        for method in ("GET", "HEAD"):
            answer = client.request(method, url, headers={"If-None-Match": condition})
            assert (answer.status_code, answer.content) == (304, b"")


def test_only_downloads_of_weights_from_the_first_byte_are_recorded(
    client: TestClient, upload: Make, database: Database
) -> None:
    version = upload()
    url = f"{version['files_url']}/model.safetensors"
    tag = client.head(url).headers["ETag"]
    client.get(url, headers={"If-None-Match": tag})
    client.get(url, headers={"Range": "bytes=1-"})
    client.get(f"{version['files_url']}/config.json")
    assert leaves(database, "checkpoint_downloaded") == []
    client.get(url)
    client.get(url, headers={"Range": "bytes=0-3"})
    found = leaves(database, "checkpoint_downloaded")
    assert [leaf["version_id"] for leaf in found] == [version["version_id"]] * 2
    assert found[0]["token_id"].startswith("tok_")


def test_file_that_the_storage_lost_is_an_error_and_not_a_broken_body(
    client: TestClient, app: FastAPI, upload: Make, database: Database
) -> None:
    version = upload()
    app.state.storage.delete(f"checkpoints/{version['checkpoint_sha256']}")
    answer = client.get(f"{version['files_url']}/model.safetensors")
    assert answer.status_code == 503
    assert answer.json()["type"].endswith("/object-missing")
    assert leaves(database, "checkpoint_downloaded") == []
