"""A manifest is refused when it is put, not later by the run that reads it."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.core.db import Database
from app.datasets import manifest, readers
from app.datasets.errors import ManifestInvalid
from app.datasets.rows import Rules
from engine.data.files import DataFiles
from engine.data.manifest import load_dataset
from engine.data.rows import MAX_TEXT
from engine.errors import DataError
from engine.spec import DataSpec

JSON_LINES = {"Content-Type": "application/jsonl"}
PARQUET = {"Content-Type": "application/vnd.apache.parquet"}
MakeDataset = Callable[..., dict[str, Any]]


def row(number: int, **members: Any) -> dict[str, Any]:
    """Return a row that stands for itself, changed by ``members``; those that are None are left out."""
    whole = {
        "id": f"p{number}",
        "image": f"{number}.png",
        "text": f"caption {number}",
        "split": "train",
        **members,
    }
    return {name: value for name, value in whole.items() if value is not None}


def lines(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(one) + "\n" for one in rows).encode()


def put(client: TestClient, dataset: dict[str, Any], content: bytes, **headers: str) -> Any:
    url = f"/v1/datasets/{dataset['dataset_id']}/pairs"
    return client.put(url, content=content, headers={**JSON_LINES, **headers})


CONFLICTS = [
    pytest.param(
        [row(1, item_id="a"), row(2, image="1.png", item_id="b")],
        [(2, "item_id: the reference '1.png' has the item_id 'a' on line 1; one item has one id")],
        id="one reference with two item ids",
    ),
    pytest.param(
        [row(1), row(2, image="1.png", item_id="b")],
        [(2, "the reference '1.png' has the item_id '1.png' on line 1")],
        id="one reference with its default and another item id",
    ),
    pytest.param(
        [
            row(1, image=["a.png", "b.png"], item_id=["a", "b"]),
            row(2, image=["b.png", "c.png"], item_id=["x", "c"]),
        ],
        [(2, "the reference 'b.png' has the item_id 'b' on line 1")],
        id="the second image of a pair",
    ),
    pytest.param(
        [row(1, image=["a.png", "a.png"], item_id=["x", "y"])],
        [(1, "the reference 'a.png' has the item_id 'x' on line 1")],
        id="within one row",
    ),
    pytest.param(
        [row(1, text_id="t"), row(2), row(3, text_id="t"), row(4, text_id="t", text="caption 1")],
        [(3, "text_id: 't' stands for another text on line 1")],
        id="one text_id with two texts",
    ),
    pytest.param(
        [row(1), row(2, text_id="p1")],
        [(2, "text_id: 'p1' stands for another text on line 1")],
        id="a text_id that is another pair's default",
    ),
    pytest.param(
        [row(1, label=0), row(2), row(3, label=1), row(4)],
        [
            (2, "label: expected in every row or in none; line 1 has one, this row none"),
            (4, "label: expected in every row or in none; line 1 has one, this row none"),
        ],
        id="labels in some rows",
    ),
    pytest.param(
        [row(1, split="test"), row(2, label=1)],
        [(2, "label: expected in every row or in none; line 1 has none, this row one")],
        id="labels of one split only",
    ),
    pytest.param(
        [row(1, split="test"), row(2, image=["a.png", "b.png"]), row(3, image=["a.png"])],
        [(2, "image: expected 1 in every row, as on line 1; 2 came")],
        id="one image and two",
    ),
    pytest.param(
        [row(1), row(2), row(1, text_id="t")],
        [(3, "id: line 1 has it already")],
        id="one id twice",
    ),
]


@pytest.mark.parametrize(("rows", "expected"), CONFLICTS)
def test_rows_that_contradict_each_other_are_refused_with_line_and_reason(
    client: TestClient,
    database: Database,
    make_dataset: MakeDataset,
    rows: list[dict[str, Any]],
    expected: list[tuple[int, str]],
) -> None:
    dataset = make_dataset(count=0)
    answer = put(client, dataset, lines(*rows))
    assert answer.status_code == 422, answer.text
    assert answer.json()["type"].endswith("/manifest-invalid")
    found = answer.json()["errors"]
    assert [error["line"] for error in found] == [line for line, _ in expected]
    for error, (_, reason) in zip(found, expected, strict=True):
        assert reason in error["detail"]
    assert answer.json()["broken_rows"] == len(expected)
    with database.transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM pairs")) == 0
    assert client.get(f"/v1/datasets/{dataset['dataset_id']}").json() == dataset
    assert put(client, dataset, lines(row(1), row(2))).status_code == 200


def test_rows_that_agree_may_share_items_and_texts(
    client: TestClient, database: Database, make_dataset: MakeDataset
) -> None:
    rows = [
        row(1, image=["a.png", "b.png"], item_id=["a", "b"], text_id="t", text="both"),
        row(2, image=["b.png", "a.png"], item_id=["b", "a"], text_id="t", text="both"),
        row(3, image=["copy-of-b.png", "b.png"], item_id=["b", "b"]),
    ]
    answer = put(client, make_dataset(count=0), lines(*rows))
    assert answer.status_code == 200, answer.text
    with database.transaction() as session:
        query = text("SELECT pair_id, item_id, second_item_id, text_id FROM pairs ORDER BY pair_id")
        found = [tuple(one) for one in session.execute(query)]
    assert found == [("p1", "a", "b", "t"), ("p2", "b", "a", "t"), ("p3", "b", "b", "p3")]


def test_lines_are_counted_as_they_were_sent(client: TestClient, make_dataset: MakeDataset) -> None:
    rows = b"\n".join([b"", lines(row(1)), b"", lines(row(1))])
    answer = put(client, make_dataset(count=0), rows)
    assert answer.json()["errors"] == [{"line": 5, "detail": "id: line 2 has it already"}]


@pytest.mark.parametrize(
    ("line", "member"),
    [
        ('{"id": "a", "id": "b", "image": "a.png", "text": "t", "split": "train"}', "id"),
        ('{"id":"a","image":"a.png","text":"t","split":"val","split" :"train"}', "split"),
        ('{"id": "a", "image": "a.png", "te\\u0078t": "x", "text": "t", "split": "train"}', "text"),
        ('{"id": "a", "image": "a.png", "text": "a: b", "text": "c", "split": "train"}', "text"),
        ('{"id": "a", "image": "a.png", "text": ":", "split": "val", "split": "val"}', "split"),
        (
            '{"id": "a", "id": "b", "image": "a.png", "text": "a \\u003A b", "split": "train"}',
            "id",
        ),
        (
            '{"id": "a", "image": "a.png", "text": "t", "split": "val", "label": 1%s, "label": 1}'
            % ("0" * 4000),
            "label",
        ),
    ],
)
def test_row_with_a_member_twice_is_refused_with_its_line(
    client: TestClient, make_dataset: MakeDataset, line: str, member: str
) -> None:
    answer = put(client, make_dataset(count=0), lines(row(1)) + line.encode())
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert error["line"] == 2
    assert error["detail"] == f"{member}: expected once; the row has it more than once"


def test_colons_in_texts_and_a_mark_before_the_first_row_are_no_faults(
    client: TestClient, make_dataset: MakeDataset
) -> None:
    rows = lines(
        row(1, text='note: "id": 1, as 9:30'),
        row(2, id="a:b", text_id="c:d", image=["photo:y.png"]),
        row(3, text="\u4e00 : \u003a"),
    )
    rows += b'{"id": "p4", "image": "4.png", "text": "a \\u003a b:", "split": "train"}'
    answer = put(client, make_dataset(count=0), b"\xef\xbb\xbf" + rows)
    assert answer.status_code == 200, answer.text
    assert answer.json()["pair_count"] == 4


def test_of_many_contradictions_the_first_20_are_named_and_all_are_counted(
    client: TestClient, make_dataset: MakeDataset
) -> None:
    rows = [row(number, text_id="t", image="a.png", item_id=f"i{number}") for number in range(40)]
    problem = put(client, make_dataset(count=0), lines(*rows)).json()
    assert problem["broken_rows"] == 39
    assert [error["line"] for error in problem["errors"]] == list(range(2, 22))


def test_contradictions_in_parquet_are_named_by_row(
    client: TestClient, make_dataset: MakeDataset
) -> None:
    out = io.BytesIO()
    rows = [row(1, item_id="a"), row(2, item_id="b"), row(3, image="2.png", item_id="c")]
    pq.write_table(pa.Table.from_pylist(rows), out)
    answer = put(client, make_dataset(count=0), out.getvalue(), **PARQUET)
    assert [error["line"] for error in answer.json()["errors"]] == [3]


def test_parquet_with_text_that_is_no_utf8_is_refused(
    client: TestClient, make_dataset: MakeDataset
) -> None:
    columns = {name: [str(value)] for name, value in row(1).items()}
    broken = pa.array([b"\xff\xfe"], pa.binary()).view(pa.string())
    out = io.BytesIO()
    pq.write_table(pa.table({**columns, "text": broken}), out)
    answer = put(client, make_dataset(count=0), out.getvalue(), **PARQUET)
    assert answer.status_code == 422, answer.text
    assert "UnicodeDecodeError" in answer.json()["detail"]


def test_another_manifest_is_refused_with_what_was_expected_what_came_and_what_to_do(
    client: TestClient, app: FastAPI, make_dataset: MakeDataset
) -> None:
    dataset = make_dataset(count=0)
    ready = put(client, dataset, lines(row(1))).json()
    detail = put(client, dataset, lines(row(2))).json()["detail"]
    assert detail.startswith(f"Expected the manifest that dataset {dataset['dataset_id']} has")
    assert ready["manifest_sha256"] in detail
    other = put(client, make_dataset("other", count=0), lines(row(2))).json()
    assert f"one with SHA-256 {other['manifest_sha256']} came" in detail
    assert "Register a new dataset" in detail


REFERENCES = [
    "a.png",
    "./a.png",
    "folder/a.png",
    "folder//a.png",
    "folder/./a.png",
    "folder/a.png/",
    "folder/.hidden",
    "folder//a.zip::b.png",
    "a..b.png",
    "zwölf 12.png",
    ".hidden",
    "a.zip::b.png",
    ".",
    "./",
    "../a.png",
    "/a.png",
    "a\\b.png",
    "a\u200bb.png",
    "a\u00a0b.png",
    "a.zip::../b.png",
    "a.zip::/b.png",
    "../a.zip::b.png",
    "::b.png",
    "a\nb.png",
    "a\x85b.png",
    "a\0b.png",
]


@pytest.mark.parametrize("reference", REFERENCES)
def test_references_that_no_run_would_open_are_refused(tmp_path: Path, reference: str) -> None:
    """A run says that nothing is there about a good reference, and refuses a bad one as such."""
    with ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("other.png", b"")
    with pytest.raises(DataError) as raised:
        DataFiles(tmp_path).read(reference)
    refused = any(said in str(raised.value) for said in ("relative path", "shortest form"))
    assert _accepts(tmp_path, lines(row(1, image=reference))) is not refused


MANIFESTS = [
    *(pytest.param(case.values[0], id=str(case.id)) for case in CONFLICTS),
    pytest.param([row(1), row(2)], id="good"),
    pytest.param([row(1, label=1), row(2, label=0)], id="labelled"),
    pytest.param([row(1, image=["a", "b"], item_id=["x", "y"])], id="two items"),
    pytest.param([row(1, image=["a", "b"], item_id=["x"])], id="two items, one id"),
    pytest.param([row(1, image=["a", "b", "c"])], id="three items"),
    pytest.param([row(1, image=None)], id="no item"),
    pytest.param([row(1, graph="g.npz::k")], id="image and graph"),
    pytest.param([row(1, label=-1)], id="label below 0"),
    pytest.param([row(1, text="x" * MAX_TEXT)], id="longest text"),
    pytest.param([row(1, text="x" * (MAX_TEXT + 1))], id="text too long"),
    pytest.param([row(1, text="")], id="empty text"),
    pytest.param([row(1, id="x" * 255)], id="longest id"),
    pytest.param([row(1, id="x" * 256)], id="id too long"),
    pytest.param([row(1, image="x" * 1025)], id="reference too long"),
    pytest.param([row(1, split="dev")], id="unknown split"),
    pytest.param([row(1, lable=1)], id="unknown member"),
    pytest.param([], id="empty"),
]


@pytest.mark.parametrize("rows", MANIFESTS)
def test_service_and_engine_agree_which_manifests_are_good(
    client: TestClient, make_dataset: MakeDataset, tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    """What the engine refuses later is refused now, and what is accepted now, it reads."""
    content = lines(*rows)
    file = tmp_path / "manifest.jsonl"
    file.write_bytes(content)
    try:
        loaded = load_dataset(DataSpec(manifest=file, root=tmp_path))
    except DataError:
        loaded = None
    answer = put(client, make_dataset(count=0), content)
    assert answer.status_code == (200 if loaded else 422), answer.text


@pytest.mark.parametrize("reference", ["g.npz", "::k", "g.npz::", "../g.npz::k", "/g.npz::k"])
def test_graph_reference_must_name_a_file_and_a_subgraph(tmp_path: Path, reference: str) -> None:
    good = {"id": "a", "graph": "graph/g.npz::../k", "text": "t", "split": "train"}
    assert _accepts(tmp_path, lines(good), "graph")
    assert not _accepts(tmp_path, lines({**good, "graph": reference}), "graph")


def _accepts(folder: Path, content: bytes, modality: str = "image") -> bool:
    source = folder / "source.jsonl"
    source.write_bytes(content)
    try:
        manifest.prepare(source, readers.JSON_LINES[0], Rules(modality, None), folder)
    except ManifestInvalid:
        return False
    return True
