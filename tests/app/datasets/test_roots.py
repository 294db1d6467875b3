"""A root is there when its dataset is registered, as far as this process sees the data."""

import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.datasets.errors import RootMissing
from app.datasets.roots import checked_root


@pytest.mark.parametrize(
    "name", ["gone", "gone/deeper", "notes.txt", "notes.txt/x", "loop", "x.tar"]
)
def test_root_that_is_not_there_is_refused_at_its_pointer(
    client: TestClient, data_root: Path, name: str
) -> None:
    (data_root / "notes.txt").write_text("no archive")
    (data_root / "x.tar").write_text("no archive")
    (data_root / "loop").symlink_to("loop")
    body = {"name": "d", "modality": "image", "root": f"{data_root}/{name}"}
    answer = client.post("/v1/datasets", json=body)
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert problem["type"].endswith("/root-missing")
    assert [error["pointer"] for error in problem["errors"]] == ["#/root"]
    assert client.get("/v1/datasets").json()["items"] == []


def test_folder_zip_and_tar_are_roots(data_root: Path) -> None:
    (data_root / "folder").mkdir()
    with ZipFile(data_root / "a.zip", "w") as archive:
        archive.writestr("a.png", b"")
    with tarfile.open(data_root / "a.tar", "w"):
        pass
    with tarfile.open(data_root / "packed.tar", "w:gz"):
        pass
    for name in ("folder", "a.zip", "a.tar", ""):
        root = str(data_root / name)
        assert checked_root(root, ["/elsewhere", str(data_root)]) == root
    with pytest.raises(RootMissing, match="something else"):
        checked_root(str(data_root / "packed.tar"), [str(data_root)])


def test_root_below_a_data_root_that_only_workers_see_is_taken(
    client: TestClient, app: FastAPI, data_root: Path
) -> None:
    far = data_root / "on-another-machine"
    app.state.settings.data_roots = [str(far)]
    body = {"name": "d", "modality": "image", "root": f"{far}/photos"}
    answer = client.post("/v1/datasets", json=body)
    assert answer.status_code == 201, answer.text
    assert answer.json()["root"] == f"{far}/photos"
