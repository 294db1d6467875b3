"""Bodies that are not announced as JSON in UTF-8, or are packed, are refused with 415."""

import gzip
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

MODEL = b'{"name": "m", "family": "albef", "task": "retrieval"}'


def send(client: TestClient, media_type: str | None, **headers: str) -> Any:
    request = client.build_request("POST", "/v1/models", content=MODEL, headers=headers)
    if media_type is not None:
        request.headers["Content-Type"] = media_type
    return client.send(request)


@pytest.mark.parametrize(
    "media_type",
    [
        "application/json",
        "APPLICATION/JSON",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        "application/vnd.lethe.model+json",
    ],
)
def test_json_by_any_of_its_names_is_taken(client: TestClient, media_type: str) -> None:
    assert send(client, media_type).status_code == 201


@pytest.mark.parametrize(
    "media_type",
    [
        None,
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonl",
        "application/json, text/plain",
        "application/json; charset=latin-1",
        "application/json; charset=utf-16",
    ],
)
def test_body_that_is_announced_as_anything_else_is_415_and_names_json(
    client: TestClient, media_type: str | None
) -> None:
    answer = send(client, media_type)
    assert answer.status_code == 415, answer.text
    assert answer.json()["type"].endswith("/unsupported-media-type")
    assert "application/json" in answer.json()["detail"]
    assert (media_type or "got none") in answer.json()["detail"]
    assert answer.headers["Accept"] == "application/json"


def test_optional_body_needs_the_type_only_where_there_is_one(client: TestClient) -> None:
    url = "/v1/models/mdl_1/versions/ver_1/finalize"
    assert client.post(url).status_code == 404
    assert client.post(url, content=b"{}").status_code == 415
    assert client.post("/v1/jobs/job_1/cancel", content=b"x").status_code == 404


@pytest.mark.parametrize(
    ("method", "url", "media_type"),
    [
        ("POST", "/v1/models", "application/json"),
        ("PUT", "/v1/datasets/ds_1/pairs", "application/jsonl"),
        ("PUT", "/v1/models/mdl_1/versions/ver_1/files/config.json", "application/octet-stream"),
    ],
)
def test_packed_body_is_415_and_says_how_to_send_it(
    client: TestClient, method: str, url: str, media_type: str
) -> None:
    headers = {"Content-Type": media_type, "Content-Encoding": "gzip"}
    answer = client.request(method, url, content=gzip.compress(MODEL), headers=headers)
    assert answer.status_code == 415, answer.text
    assert answer.headers["Accept-Encoding"] == "identity"
    for plain in ("", "identity"):
        headers["Content-Encoding"] = plain
        assert client.request(method, url, content=MODEL, headers=headers).status_code != 415


def test_415_is_documented_wherever_there_is_a_body(app: FastAPI) -> None:
    document = app.openapi()
    found = [
        operation
        for path in document["paths"].values()
        for operation in path.values()
        if "requestBody" in operation
    ]
    assert len(found) >= 6
    assert all("415" in operation["responses"] for operation in found)
