"""Datasets over HTTP, and what a manifest may be."""

import base64
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.core.db import Database
from app.datasets import readers

JSON_LINES = {"Content-Type": "application/jsonl"}
MakeDataset = Callable[..., dict[str, Any]]
MakeManifest = Callable[..., bytes]


def put(client: TestClient, dataset: dict[str, Any], content: Any, **headers: str) -> Any:
    url = f"/v1/datasets/{dataset['dataset_id']}/pairs"
    return client.put(url, content=content, headers={**JSON_LINES, **headers})


def pairs_in(database: Database) -> int:
    with database.transaction() as session:
        return session.scalar(text("SELECT count(*) FROM pairs")) or 0


def spooled_files(app: FastAPI) -> list[Path]:
    return list((app.state.settings.work / "spool").rglob("*"))


def test_dataset_is_empty_until_its_manifest_is_put(
    client: TestClient, make_dataset: MakeDataset, make_manifest: MakeManifest
) -> None:
    dataset = make_dataset(count=0)
    assert (dataset["status"], dataset["pair_count"]) == ("empty", 0)
    ready = put(client, dataset, make_manifest(10)).json()
    assert ready["status"] == "ready"
    assert ready["pair_count"] == 10
    assert ready["split_counts"] == {"train": 6, "val": 2, "test": 2}
    read = client.get(f"/v1/datasets/{dataset['dataset_id']}")
    assert read.json() == ready


def test_dataset_read_again_with_its_tag_gives_304(
    client: TestClient, make_dataset: MakeDataset
) -> None:
    url = f"/v1/datasets/{make_dataset()['dataset_id']}"
    tag = client.get(url).headers["ETag"]
    again = client.get(url, headers={"If-None-Match": f'"other", W/{tag}'})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", tag)
    assert client.get(url, headers={"If-None-Match": '"other"'}).status_code == 200


def test_kept_manifest_has_every_row_with_its_defaults(
    client: TestClient, app: FastAPI, make_dataset: MakeDataset
) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "a", "image": "a.png", "text": "zwölf", "split": "train", "label": 0},
        {"split": "val", "id": "b", "image": "x.png", "label": 1, "text": "t", "text_id": "s"},
        {"id": "c\\d", "image": "c.png", "item_id": "c\\i", "text": "l1\nl2", "split": "test"},
    ]
    dataset = make_dataset(count=0)
    rows[2]["label"] = 0
    body = "\n".join(json.dumps(row) for row in rows)
    ready = put(client, dataset, body).json()
    with app.state.storage.open(f"manifests/{ready['manifest_sha256']}.jsonl") as file:
        kept = file.read()
    assert hashlib.sha256(kept).hexdigest() == ready["manifest_sha256"]
    assert [json.loads(line) for line in kept.splitlines()] == [
        {**rows[0], "item_id": "a.png", "text_id": "a"},
        {**rows[1], "item_id": "x.png"},
        {**rows[2], "text_id": "c\\d"},
    ]
    with app.state.database.transaction() as session:
        query = text("SELECT pair_id, item_id, second_item_id, text_id, split FROM pairs")
        found = {tuple(row) for row in session.execute(query)}
    assert found == {
        ("a", "a.png", None, "a", "train"),
        ("b", "x.png", None, "s", "val"),
        ("c\\d", "c\\i", None, "c\\d", "test"),
    }


def test_same_pairs_as_parquet_give_the_same_manifest(
    client: TestClient, make_dataset: MakeDataset, make_manifest: MakeManifest
) -> None:
    first = make_dataset("one", count=10)
    rows = [json.loads(line) for line in make_manifest(10).splitlines()]
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([{**row, "label": None} for row in rows]), out)
    second = put(
        client,
        make_dataset("two", count=0),
        out.getvalue(),
        **{"Content-Type": "application/vnd.apache.parquet"},
    )
    assert second.status_code == 200, second.text
    assert second.json()["manifest_sha256"] == first["manifest_sha256"]


def test_same_manifest_again_changes_nothing_and_another_is_refused(
    client: TestClient, make_dataset: MakeDataset, make_manifest: MakeManifest, database: Database
) -> None:
    dataset = make_dataset(count=10)
    again = put(client, dataset, make_manifest(10))
    assert (again.status_code, again.json()) == (200, dataset)
    other = put(client, dataset, make_manifest(11))
    assert other.status_code == 409
    assert other.json()["type"].endswith("/manifest-fixed")
    assert pairs_in(database) == 10
    with database.transaction() as session:
        query = text("SELECT count(*) FROM ledger_leaves WHERE kind = 'dataset_registered'")
        assert session.scalar(query) == 1


BROKEN = [
    (b"{", "Invalid JSON"),
    (b"[]", "object"),
    (b'{"id":"a","image":"a","text":"t","split":"dev"}', "split:"),
    (b'{"id":"a","image":"a","split":"val"}', "text: Field required"),
    (b'{"id":"","image":"a","text":"t","split":"val"}', "id:"),
    (b'{"id":7,"image":"a","text":"t","split":"val"}', "id:"),
    (b'{"id":"a\\u0000b","image":"a","text":"t","split":"val"}', "id:"),
    (b'{"id":"' + b"x" * 256 + b'","image":"a","text":"t","split":"val"}', "id:"),
    (b'{"id":"a","text":"t","split":"val"}', "expected 'image'"),
    (b'{"id":"a","graph":"a","text":"t","split":"val"}', "expected 'image'"),
    (b'{"id":"a","image":"a","graph":"a","text":"t","split":"val"}', "expected 'image'"),
    (b'{"id":"a","image":["a","b","c"],"text":"t","split":"val"}', "image:"),
    (b'{"id":"a","image":[],"text":"t","split":"val"}', "image:"),
    (b'{"id":"a","image":"../a","text":"t","split":"val"}', "without '..'"),
    (b'{"id":"a","image":"b/../../a","text":"t","split":"val"}', "without '..'"),
    (b'{"id":"a","image":"/etc/passwd","text":"t","split":"val"}', "relative path"),
    (b'{"id":"a","image":"..\\\\a","text":"t","split":"val"}', "relative path"),
    (b'{"id":"a","image":"C:a","text":"t","split":"val"}', "relative path"),
    (b'{"id":"a","image":"a","item_id":["a","b"],"text":"t","split":"val"}', "item_id: 1"),
    (b'{"id":"a","image":"a","text":"t","split":"val","label":-1}', "label:"),
    (b'{"id":"a","image":"a","text":"t","split":"val","label":true}', "label:"),
    (b'{"id":"a","image":"a","text":"t","split":"val","lable":1}', "lable: Extra"),
    (b'{"id":"a","image":"a","text":"t","split":"val","item_id":"' + "é".encode() * 600 + b'"}',
     "1024 bytes"),
    (b"\xff\xfe", "Invalid JSON"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "reason"), BROKEN)
def test_broken_row_is_refused_with_its_line_and_reason(
    client: TestClient,
    make_dataset: MakeDataset,
    make_manifest: MakeManifest,
    database: Database,
    line: bytes,
    reason: str,
) -> None:
    dataset = make_dataset(count=0)
    answer = put(client, dataset, make_manifest(3) + line + b"\n" + make_manifest(1, id="last"))
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert problem["type"].endswith("/manifest-invalid")
    assert [error["line"] for error in problem["errors"]] == [4]
    assert reason in problem["errors"][0]["detail"]
    assert pairs_in(database) == 0
    assert client.get(f"/v1/datasets/{dataset['dataset_id']}").json() == dataset


def test_of_many_broken_rows_the_first_20_are_named_and_all_are_counted(
    client: TestClient, make_dataset: MakeDataset, make_manifest: MakeManifest
) -> None:
    answer = put(client, make_dataset(count=0), make_manifest(2) + b"{}\n" * 30)
    problem = answer.json()
    assert problem["broken_rows"] == 30
    assert [error["line"] for error in problem["errors"]] == list(range(3, 23))


def test_repeated_ids_are_refused_with_both_lines_and_nothing_is_registered(
    client: TestClient,
    app: FastAPI,
    make_dataset: MakeDataset,
    make_manifest: MakeManifest,
    database: Database,
) -> None:
    dataset = make_dataset(count=0)
    rows = make_manifest(5) + make_manifest(2)
    answer = put(client, dataset, rows)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"] == [
        {"line": 6, "detail": "id: line 1 has it already"},
        {"line": 7, "detail": "id: line 2 has it already"},
    ]
    assert answer.json()["broken_rows"] == 2
    assert pairs_in(database) == 0
    assert not list(Path(app.state.storage.local_path("manifests")).glob("*"))
    assert put(client, dataset, make_manifest(5)).status_code == 200


def test_label_outside_of_the_classes_is_refused(
    client: TestClient, make_dataset: MakeDataset, make_manifest: MakeManifest
) -> None:
    dataset = make_dataset(count=0, classes=2)
    assert "none came" in put(client, dataset, make_manifest(1)).json()["errors"][0]["detail"]
    assert "got 2" in put(client, dataset, make_manifest(1, label=2)).json()["errors"][0]["detail"]
    assert put(client, dataset, make_manifest(1, label=1)).status_code == 200


def test_empty_manifest_is_refused(client: TestClient, make_dataset: MakeDataset) -> None:
    answer = put(client, make_dataset(count=0), b"\n\n")
    assert answer.status_code == 422
    assert "no rows" in answer.json()["detail"]


def test_line_without_end_is_refused_and_not_held_in_memory(
    client: TestClient, make_dataset: MakeDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "MOST_LINE_BYTES", 1000)
    answer = put(client, make_dataset(count=0), b"x" * 5000)
    assert "more than 1000 bytes" in answer.json()["errors"][0]["detail"]


def test_damaged_parquet_is_refused(client: TestClient, make_dataset: MakeDataset) -> None:
    out = io.BytesIO()
    pq.write_table(pa.table({"id": ["a"] * 1000}), out)
    dataset = make_dataset(count=0)
    for content in (b"PAR1", out.getvalue()[:-20]):
        answer = put(client, dataset, content, **{"Content-Type": "application/vnd.apache.parquet"})
        assert answer.status_code == 422
        assert "no Parquet file" in answer.json()["detail"]


def test_media_type_that_is_no_manifest_is_refused(
    client: TestClient, make_dataset: MakeDataset
) -> None:
    answer = put(client, make_dataset(count=0), b"a,b", **{"Content-Type": "text/csv"})
    assert answer.status_code == 415
    assert "application/jsonl" in answer.json()["detail"]


def test_wrong_digest_is_refused_and_nothing_is_kept(
    client: TestClient,
    app: FastAPI,
    make_dataset: MakeDataset,
    make_manifest: MakeManifest,
    database: Database,
) -> None:
    dataset, body = make_dataset(count=0), make_manifest(3)
    digest = base64.b64encode(hashlib.sha256(body + b"!").digest()).decode()
    answer = put(client, dataset, body, **{"Repr-Digest": f"sha-256=:{digest}:"})
    assert answer.status_code == 422
    assert answer.json()["type"].endswith("/digest-mismatch")
    assert pairs_in(database) == 0
    assert spooled_files(app) == []
    right = base64.b64encode(hashlib.sha256(body).digest()).decode()
    for header in ("Repr-Digest", "Content-Digest"):
        value = f"unixsum=:MTI=:, sha-256=:{right}:"
        assert put(client, dataset, body, **{header: value}).status_code == 200
    broken = put(client, dataset, body, **{"Repr-Digest": "sha-256=:AAAA:"})
    assert "RFC 9530" in broken.json()["detail"]


def test_manifest_over_the_limit_is_refused(
    client: TestClient, app: FastAPI, make_dataset: MakeDataset, make_manifest: MakeManifest
) -> None:
    app.state.settings.max_manifest_bytes = 1024
    dataset = make_dataset(count=0)
    answer = put(client, dataset, make_manifest(100))
    assert answer.status_code == 413
    chunks = (make_manifest(10) for _ in range(10))  # no Content-Length
    assert put(client, dataset, chunks).status_code == 413
    assert spooled_files(app) == []


def test_manifest_of_a_dataset_that_is_being_read_is_a_conflict(
    client: TestClient, database_url: str, make_dataset: MakeDataset, make_manifest: MakeManifest
) -> None:
    dataset = make_dataset(count=0)
    with psycopg.connect(database_url) as other:
        other.execute(
            "SELECT 1 FROM datasets WHERE dataset_id = %s FOR UPDATE", (dataset["dataset_id"],)
        )
        answer = put(client, dataset, make_manifest(3))
    assert (answer.status_code, answer.headers["Retry-After"]) == (409, "10")
    assert put(client, dataset, make_manifest(3)).status_code == 200


def test_manifest_of_an_unknown_dataset_is_not_found(client: TestClient) -> None:
    assert put(client, {"dataset_id": "ds_none"}, b"{}").status_code == 404
    assert client.get("/v1/datasets/ds_none").status_code == 404


def test_root_must_lie_below_a_data_root(client: TestClient, data_root: Path) -> None:
    (data_root / "link").symlink_to("/etc")
    for root in (
        "/etc",
        "relative",
        f"{data_root}/../other",
        f"{data_root}-beside",
        f"{data_root}/link",
        f"{data_root}/a\x1b[31m",
        f"{data_root}/a\n",
    ):
        answer = client.post("/v1/datasets", json={"name": "x", "modality": "image", "root": root})
        assert answer.status_code == 422, root
        assert answer.json()["type"].endswith("/root-refused")
    (data_root / "b").mkdir()
    inside = {"name": "x", "modality": "image", "root": f"{data_root}/a/../b"}
    assert client.post("/v1/datasets", json=inside).json()["root"] == f"{data_root}/b"


def test_without_data_roots_the_error_names_the_setting(
    client: TestClient, app: FastAPI, data_root: Path
) -> None:
    app.state.settings.data_roots = []
    body = {"name": "x", "modality": "image", "root": str(data_root)}
    assert "LETHE_DATA_ROOTS" in client.post("/v1/datasets", json=body).json()["detail"]


def test_name_that_is_taken_is_a_conflict(
    client: TestClient, make_dataset: MakeDataset, data_root: Path
) -> None:
    make_dataset("photos", count=0)
    body = {"name": "photos", "modality": "image", "root": str(data_root)}
    answer = client.post("/v1/datasets", json=body)
    assert answer.status_code == 409
    assert answer.json()["errors"][0]["pointer"] == "#/name"


def test_fields_that_are_wrong_are_all_named_by_pointer(client: TestClient) -> None:
    answer = client.post("/v1/datasets", json={"name": "a\nb", "modality": "sound", "extra": 1})
    assert answer.status_code == 422
    pointers = {error["pointer"] for error in answer.json()["errors"]}
    assert pointers == {"#/name", "#/modality", "#/root", "#/extra"}


def test_pages_list_every_dataset_once_newest_first(
    client: TestClient, make_dataset: MakeDataset
) -> None:
    names = [make_dataset(f"set {index}", count=0)["dataset_id"] for index in range(5)]
    url, seen, pages = "/v1/datasets?limit=2", [], 0
    while url:
        answer = client.get(url)
        seen += [item["dataset_id"] for item in answer.json()["items"]]
        link = answer.links.get("next")
        assert bool(link) == bool(answer.json()["next_cursor"])
        url, pages = (link or {}).get("url", ""), pages + 1
    assert pages == 3
    assert seen == sorted(names, reverse=True)


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "cursor=!!", "cursor=bnVsbA", "cursor="])
def test_page_that_cannot_be_is_refused(client: TestClient, query: str) -> None:
    answer = client.get(f"/v1/datasets?{query}")
    assert answer.status_code == 422
    assert "parameter" in answer.json()["errors"][0]
