"""Large bodies on a real connection: truncated ones leave nothing, too long ones are not read."""

import json
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI


@pytest.fixture
def caller(live_url: str, make_token: Callable[..., str]) -> Any:
    headers = {"Authorization": f"Bearer {make_token('admin')}"}
    with httpx.Client(base_url=live_url, headers=headers) as client:
        yield client


def begin(caller: httpx.Client) -> str:
    body = {"name": "m", "family": "albef", "task": "retrieval"}
    model_id = caller.post("/v1/models", json=body).json()["model_id"]
    url = f"/v1/models/{model_id}/versions"
    return url + "/" + str(caller.post(url, json={"source": "upload"}).json()["version_id"])


def send_raw(
    caller: httpx.Client,
    path: str,
    head: str,
    body: bytes,
    method: str = "PUT",
    *,
    end: bool = True,
) -> bytes:
    """Send ``body``, close the sending side unless ``end`` is False, return what comes back."""
    where = urlsplit(str(caller.base_url))
    token = caller.headers["Authorization"]
    with socket.create_connection((where.hostname, where.port), timeout=10) as connection:
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {where.netloc}",
            f"Authorization: {token}",
            head,
        ]
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        if end:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while block := connection.recv(65536):
            received += block
        return received


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("Content-Length: 1000", b'{"a": 1}'),
        ("Transfer-Encoding: chunked", b'8\r\n{"a": 1}\r\n'),
    ],
)
def test_truncated_upload_keeps_nothing(
    caller: httpx.Client, app: FastAPI, head: str, body: bytes
) -> None:
    url = begin(caller)
    answer = send_raw(caller, f"{url}/files/config.json", head, body)
    assert b" 201 " not in answer
    deadline = time.monotonic() + 10
    work = app.state.settings.work
    while [path for path in work.rglob("*") if path.is_file()]:
        assert time.monotonic() < deadline, "the spooled part was not removed"
        time.sleep(0.02)
    assert caller.get(f"{url}/files").json()["files"] == []
    assert not (app.state.settings.data_dir / "storage" / "uploads").exists()


@pytest.mark.parametrize("length", [10**15, 2**63 - 1])
def test_upload_of_a_huge_announced_length_is_refused_before_it_is_sent(
    caller: httpx.Client, app: FastAPI, length: int
) -> None:
    url = begin(caller)
    head = f"Connection: close\r\nContent-Length: {length}"
    answer = send_raw(caller, f"{url}/files/model.safetensors", head, b"\x08", end=False)
    status, _, rest = answer.partition(b"\r\n")
    assert b" 413 " in status
    assert b"application/problem+json" in rest
    assert [path for path in app.state.settings.work.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("length", ["-1", "5x", "9" * 25, "9" * 5000, "1, 2"])
def test_length_that_is_none_is_the_callers_error(caller: httpx.Client, length: str) -> None:
    head = f"Content-Type: application/json\r\nConnection: close\r\nContent-Length: {length}"
    answer = send_raw(caller, "/v1/models", head, b"{}", "POST", end=False)
    assert b" 400 " in answer.partition(b"\r\n")[0]


def test_whole_upload_on_the_same_connection_is_kept(caller: httpx.Client) -> None:
    url = begin(caller)
    content = json.dumps({"pad": "x" * 3_000_000}).encode()
    chunks = (content[start : start + 70_001] for start in range(0, len(content), 70_001))
    put = caller.put(f"{url}/files/config.json", content=chunks)
    assert (put.status_code, put.json()["size"]) == (201, len(content))
    assert caller.get(f"{url}/files/config.json").content == content


def test_upload_without_a_token_is_refused_before_its_body_is_read(
    caller: httpx.Client, app: FastAPI
) -> None:
    url = begin(caller)
    answer = httpx.put(f"{caller.base_url}{url}/files/config.json", content=b"{}")
    assert answer.status_code == 401
    assert not (app.state.settings.work / "spool").exists()


def test_long_json_is_refused_before_it_is_sent(caller: httpx.Client) -> None:
    head = "Content-Type: application/json\r\nConnection: close\r\nContent-Length: 60000000"
    answer = send_raw(caller, "/v1/models", head, b'{"name": "', "POST", end=False)
    status, _, rest = answer.partition(b"\r\n")
    assert b" 413 " in status
    assert b"application/problem+json" in rest
    assert b"at most 1048576 bytes" in rest


def test_long_json_of_unknown_length_is_refused_at_the_limit(caller: httpx.Client) -> None:
    parts = (b" " * 2**16 for _ in range(100))
    headers = {"Content-Type": "application/json"}
    answer = caller.post("/v1/datasets", content=parts, headers=headers)
    assert answer.status_code == 413
    assert answer.json()["type"].endswith("/too-large")
    fitting = json.dumps({"name": "m", "family": "albef", "task": "retrieval"}).ljust(2**20)
    assert caller.post("/v1/models", content=fitting, headers=headers).status_code == 201


def test_deletion_requests_may_be_long_up_to_the_setting(
    caller: httpx.Client, app: FastAPI, data_root: Any
) -> None:
    dataset = {"name": "d", "modality": "image", "root": str(data_root)}
    dataset_id = caller.post("/v1/datasets", json=dataset).json()["dataset_id"]
    row = b'{"id": "a", "image": "a.png", "text": "a", "split": "train"}'
    url, headers = f"/v1/datasets/{dataset_id}/pairs", {"Content-Type": "application/jsonl"}
    assert caller.put(url, content=row, headers=headers).status_code == 200
    ids = [f"pair-{number:09}" for number in range(100_000)]
    body = {"dataset_id": dataset_id, "targets": {"pair_ids": ids}}
    answer = caller.post("/v1/deletion-requests", json=body)
    assert answer.json()["unknown"]["pair_ids"]["count"] == 100_000
    app.state.settings.max_body_bytes = len(json.dumps(body)) // 2
    assert caller.post("/v1/deletion-requests", json=body).status_code == 413
