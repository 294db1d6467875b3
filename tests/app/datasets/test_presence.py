"""Files that a manifest refers to are looked for when it is put, where the root can be seen."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.core.db import Database

Make = Callable[..., dict[str, Any]]
Put = Callable[..., Any]


@pytest.fixture
def put(client: TestClient, make_dataset: Make) -> Put:
    """Give a function that puts a manifest with a row for each reference, or for each two."""

    def send(*references: str | list[str], modality: str = "image", **members: Any) -> Any:
        dataset = make_dataset(count=0, modality=modality, **members)
        rows = [
            {"id": f"p{number}", modality: reference, "text": f"t {number}", "split": "train"}
            for number, reference in enumerate(references)
        ]
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        url = f"/v1/datasets/{dataset['dataset_id']}/pairs"
        return client.put(url, content=content, headers={"Content-Type": "application/jsonl"})

    return send


def _files(root: Path, *names: str) -> None:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")


def _errors(answer: Any) -> list[tuple[int, str]]:
    assert answer.status_code == 422, answer.text
    assert answer.json()["type"].endswith("/manifest-invalid")
    return [(error["line"], error["detail"]) for error in answer.json()["errors"]]


def test_missing_files_are_named_with_their_lines_and_nothing_is_registered(
    put: Put, data_root: Path, database: Database
) -> None:
    _files(data_root, "a.png", "deep/er/b.png", "deep/folder.png/c.png")
    answer = put("a.png", "c.png", "deep/er/b.png", "deep/er/a.png", "none/a.png", "a.png/x")
    absent = {2: "c.png", 4: "deep/er/a.png", 5: "none/a.png", 6: "a.png/x"}
    expected = [
        (line, f"there is no file {name!r} below the root") for line, name in absent.items()
    ]
    assert _errors(answer) == expected
    assert answer.json()["broken_rows"] == 4
    with database.transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM pairs")) == 0
        assert session.scalar(text("SELECT status FROM datasets")) == "empty"


def test_what_a_link_out_of_the_root_leads_to_is_not_there(
    put: Put, data_root: Path, tmp_path: Path
) -> None:
    root = data_root / "photos"
    _files(tmp_path / "elsewhere", "a.png")
    _files(root, "own/b.png")
    (root / "a.png").symlink_to(tmp_path / "elsewhere" / "a.png")
    (root / "folder").symlink_to(tmp_path / "elsewhere")
    (root / "again").symlink_to(root / "own")
    answer = put("own/b.png", "again/b.png", "a.png", "folder/a.png", root=str(root))
    found = dict(_errors(answer))
    assert list(found) == [3, 4]
    assert found[3].endswith("links that lead out of the root are not followed")
    assert found[4] == "there is no file 'folder/a.png' below the root"


def test_a_folder_is_no_file_and_neither_is_a_link_to_nothing(put: Put, data_root: Path) -> None:
    _files(data_root, "folder/a.png", "z.png")
    (data_root / "loop").symlink_to(data_root / "loop")
    (data_root / "loose").symlink_to(data_root / "nowhere")
    names = ("folder", "loop", "loose", "loop/a.png", "n" * 300 + "/a.png", "z.png", "folder/a.png")
    assert [line for line, _ in _errors(put(*names))] == [1, 2, 3, 4, 5]


def test_of_many_missing_files_the_first_ones_are_named_and_all_rows_are_counted(
    put: Put, data_root: Path
) -> None:
    _files(data_root, "a.png")
    answer = put("a.png", *[f"{number % 30}.png" for number in range(60)])
    assert [line for line, _ in _errors(answer)] == list(range(2, 22))
    assert answer.json()["broken_rows"] == 60


def test_both_images_of_a_pair_are_looked_for(put: Put, data_root: Path) -> None:
    _files(data_root, "a.png", "b.png")
    answer = put(["a.png", "b.png"], ["a.png", "c.png"], ["d.png", "e.png"])
    assert [line for line, _ in _errors(answer)] == [2, 3]


def test_files_that_are_there_are_found_whatever_their_names(put: Put, data_root: Path) -> None:
    names = ["a b.png", "ä/ö ü.png", "%_'\".png", "x::y", "deep/er/link.png"]
    _files(data_root, "a b.png", "ä/ö ü.png", "%_'\".png", "x", "back\\slash.png", "new\nline.png")
    (data_root / "deep/er").mkdir(parents=True)
    (data_root / "deep/er/link.png").symlink_to(data_root / "x")
    (data_root / "not-\udcff-utf8.png").write_bytes(b"")
    assert put(*names).status_code == 200


def test_archives_and_graph_files_are_looked_for_and_not_what_is_in_them(
    put: Put, data_root: Path
) -> None:
    _files(data_root, "shards/0.tar", "g/subgraphs.npz")
    assert put("shards/0.tar::any.png").status_code == 200
    assert _errors(put("shards/0.tar::a.png", "shards/1.tar::a.png", name="two"))[0][0] == 2
    assert put("g/subgraphs.npz::key", modality="graph", name="three").status_code == 200
    answer = put("h/subgraphs.npz::key", modality="graph", name="four")
    assert "'h/subgraphs.npz'" in _errors(answer)[0][1]


def test_a_root_that_cannot_be_seen_into_is_not_judged(
    put: Put, data_root: Path, client: TestClient
) -> None:
    assert put("a.png").status_code == 200  # empty, as where nothing is mounted
    with ZipFile(data_root / "images.zip", "w") as archive:
        archive.writestr("b.png", b"")
    root = str(data_root / "images.zip")
    assert put("a.png", name="archive", root=root).status_code == 200
    assert put("a.png", name="folder").status_code == 422
    listed = client.get("/v1/datasets").json()["items"]
    assert {one["name"]: one["status"] for one in listed} == {
        "photos": "ready",
        "archive": "ready",
        "folder": "empty",
    }


def test_a_folder_that_may_not_be_read_is_not_judged(
    put: Put, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rights do not stop the superuser, so that the refusal is made here."""
    from app.datasets import presence

    scandir = presence.os.scandir

    def refuse(folder: Any) -> Any:
        if folder == data_root / "secret":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    _files(data_root, "open/a.png", "secret/a.png")
    monkeypatch.setattr(presence.os, "scandir", refuse)
    assert [line for line, _ in _errors(put("secret/b.png", "open/b.png"))] == [2]
