"""Large bodies on a real connection: truncated ones leave nothing behind."""

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


def send_raw(caller: httpx.Client, path: str, head: str, body: bytes) -> bytes:
    """Send ``body``, close the sending side, and return what comes back."""
    where = urlsplit(str(caller.base_url))
    token = caller.headers["Authorization"]
    with socket.create_connection((where.hostname, where.port), timeout=10) as connection:
        lines = [f"PUT {path} HTTP/1.1", f"Host: {where.netloc}", f"Authorization: {token}", head]
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
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
