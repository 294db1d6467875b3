"""Control characters in paths, ids and names are the caller's error, and reach no log as they are."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.core import logs

RAW = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]")
ODD = ["\0", "\n", "\x1b[31m", "\x85", "\u2028"]
# As JSON may spell it, though it is no character at all.
LONE_SURROGATE = "\\ud800"
JSON = {"Content-Type": "application/json"}
JSON_LINES = {"Content-Type": "application/jsonl"}
Make = Callable[..., dict[str, Any]]


def _spelled(text: str) -> list[str]:
    """Return ``text`` with each odd thing in place of ``@``, as the body of a request has it."""
    return [text.replace("@", json.dumps(odd)[1:-1]) for odd in ODD] + [
        text.replace("@", LONE_SURROGATE)
    ]


@pytest.mark.parametrize("form", ["human", "json"])
def test_paths_with_control_characters_are_answered_and_logged_in_one_clean_line(
    client: TestClient, capsys: pytest.CaptureFixture[str], form: logs.Format
) -> None:
    logs.configure(form, "info")
    for odd in ("%00", "%0A", "%1B%5B31m", "%C2%85", "%FF", "%E2%80%A8"):
        for url in (
            f"/v1/datasets/a{odd}b",
            f"/v1/models/a{odd}b",
            f"/v1/models/m/versions/a{odd}b/files/model.safetensors",
            f"/v1/deletion-requests/a{odd}b",
            f"/v1/deletion-requests?dataset_id=a{odd}b",
        ):
            assert client.get(url).status_code in {200, 404, 422}, url
            lines = capsys.readouterr().err
            assert lines.count("\n") == 1 + ("value_refused" in lines), lines
            assert not RAW.search(lines), lines


@pytest.mark.parametrize("root", ["{root}/a@b", "/a@b"])
def test_root_with_control_characters_is_refused(
    client: TestClient, data_root: Any, root: str
) -> None:
    body = {"name": "d", "modality": "image", "root": root.format(root=data_root)}
    for content in _spelled(json.dumps(body)):
        answer = client.post("/v1/datasets", content=content, headers=JSON)
        assert answer.status_code == 422, content
    assert client.get("/v1/datasets").json()["items"] == []


@pytest.mark.parametrize("member", ["id", "image", "item_id", "text_id", "split", "a@b"])
def test_manifest_with_control_characters_is_refused_at_its_line(
    client: TestClient,
    make_dataset: Make,
    member: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    logs.configure("human", "info")
    row = {"id": "a", "image": "a.png", "text": "t", "split": "train", member: "a@b"}
    dataset = make_dataset(count=0)
    for content in _spelled(json.dumps(row)):
        url, headers = f"/v1/datasets/{dataset['dataset_id']}/pairs", JSON_LINES
        answer = client.put(url, content=content, headers=headers)
        assert answer.status_code == 422, content
        assert [error["line"] for error in answer.json()["errors"]] == [1]
    assert not RAW.search(capsys.readouterr().err)


@pytest.mark.parametrize("kind", ["pair_ids", "item_ids", "text_ids"])
def test_targets_with_control_characters_are_refused_by_pointer(
    client: TestClient, make_dataset: Make, kind: str
) -> None:
    body = {"dataset_id": make_dataset()["dataset_id"], "targets": {kind: ["a", "a@b"]}}
    for content in _spelled(json.dumps(body))[:3]:
        answer = client.post("/v1/deletion-requests", content=content, headers=JSON)
        assert answer.status_code == 422, content
        assert [error["pointer"] for error in answer.json()["errors"]] == [f"#/targets/{kind}/1"]


@pytest.mark.parametrize(
    "members",
    [
        {"source": "training", "config": {"a@b": 1}},
        {"source": "training", "config": {"heads": "a@b"}},
        {"source": "training", "config": {"pretrained_text": "a@b"}},
        {"source": "training", "training": {"epochs": {"a@b": 1}}},
        {"source": "upload", "recipe": {"config": {"a@b": 1}}},
        {"source": "a@b"},
        {"source": "training", "dataset_id": "a@b"},
    ],
)
def test_versions_with_control_characters_are_refused(
    client: TestClient, make_dataset: Make, make_model: Make, members: dict[str, Any]
) -> None:
    url = f"/v1/models/{make_model()['model_id']}/versions"
    body = {"dataset_id": make_dataset()["dataset_id"], **members}
    for content in _spelled(json.dumps(body)):
        answer = client.post(url, content=content, headers=JSON)
        assert answer.status_code in {404, 422}, content
    assert client.get(url).json()["items"] == []
