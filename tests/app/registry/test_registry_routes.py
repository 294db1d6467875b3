"""Models, versions and lineages over HTTP."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.core.db import Database
from app.registry import queries, service

Make = Callable[..., dict[str, Any]]


def test_catalogue_is_served_with_schemas(client: TestClient) -> None:
    answer = client.get("/v1/catalogue").json()
    assert "multidelete" in answer["methods"]
    assert answer["families"]["albef"]["config_schema"]["type"] == "object"


def test_model_of_unknown_or_unfit_parts_is_refused(client: TestClient, make_model: Make) -> None:
    for family, task, said in (
        ("bert", "retrieval", "known are albef"),
        ("albef", "translation", "known are graph_text"),
        ("albef", "graph_text", "it can for nlvr, retrieval"),
    ):
        body = {"name": "m", "family": family, "task": task}
        answer = client.post("/v1/models", json=body)
        assert answer.status_code == 422
        assert said in answer.json()["detail"]
    make_model("m")
    again = client.post("/v1/models", json={"name": "m", "family": "albef", "task": "retrieval"})
    assert again.status_code == 409


def test_training_queues_a_job_whose_lineage_waits_for_its_version(
    client: TestClient, make_model: Make, make_dataset: Make, database: Database
) -> None:
    model, dataset = make_model(), make_dataset()
    url = f"/v1/models/{model['model_id']}/versions"
    body = {"source": "training", "dataset_id": dataset["dataset_id"], "config": {"heads": 2}}
    answer = client.post(url, json=body)
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert answer.headers["Location"] == f"/v1/jobs/{job['job_id']}"
    assert answer.headers["Retry-After"]
    with database.transaction() as session:
        row = session.execute(text("SELECT kind, status, spec FROM jobs")).one()
    assert row.kind == "train"
    assert row.status == "queued"
    assert row.spec == {"config": {"heads": 2}, "training": {}, "seed": 0}
    assert client.get(url).json()["items"] == []


def put_pairs(client: TestClient, dataset: dict[str, Any], manifest: bytes) -> None:
    url = f"/v1/datasets/{dataset['dataset_id']}/pairs"
    answer = client.put(url, content=manifest, headers={"Content-Type": "application/x-ndjson"})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("train", [0, 1])
@pytest.mark.parametrize("source", ["training", "upload"])
def test_dataset_with_too_few_training_pairs_is_refused_with_its_splits(
    client: TestClient,
    make_model: Make,
    make_dataset: Make,
    make_manifest: Callable[..., bytes],
    database: Database,
    train: int,
    source: str,
) -> None:
    model, dataset = make_model(), make_dataset(count=0)
    extra = make_manifest(1, id="only", image="only.png") if train else b""
    put_pairs(client, dataset, make_manifest(5, split="val") + extra)
    url = f"/v1/models/{model['model_id']}/versions"
    answer = client.post(url, json={"source": source, "dataset_id": dataset["dataset_id"]})
    assert answer.status_code == 422, answer.text
    assert answer.json()["type"].endswith("/too-few-training-pairs")
    assert f"has train {train}, val 5, test 0" in answer.json()["detail"]
    assert answer.json()["errors"][0]["pointer"] == "#/dataset_id"
    with database.transaction() as session:
        counts = "SELECT (SELECT count(*) FROM jobs) + (SELECT count(*) FROM versions)"
        assert session.scalar(text(counts)) == 0


def test_training_that_cannot_be_is_refused_and_queues_nothing(
    client: TestClient, make_model: Make, make_dataset: Make, database: Database
) -> None:
    model, empty = make_model(), make_dataset("empty", count=0)
    ready = make_dataset("ready")
    graphs = make_dataset("graphs", count=0, modality="graph")
    row = b'{"id":"a","graph":"g.npz::a","text":"t","split":"train"}'
    put_pairs(client, graphs, row)
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"dataset_id": "ds_none"}, 404, "dataset-not-found"),
        ({"dataset_id": empty["dataset_id"]}, 409, "dataset-not-ready"),
        ({"dataset_id": graphs["dataset_id"]}, 422, "wrong-modality"),
        ({"dataset_id": ready["dataset_id"], "config": {"nonsense": 1}}, 422, "parameters-invalid"),
        (
            {"dataset_id": ready["dataset_id"], "training": {"epochs": -1}},
            422,
            "parameters-invalid",
        ),
        ({"dataset_id": ready["dataset_id"], "seed": -1}, 422, "invalid"),
        ({"dataset_id": ready["dataset_id"], "seed": 2**31}, 422, "invalid"),
        ({"dataset_id": ready["dataset_id"], "source": "theft"}, 422, "invalid"),
    ]
    url = f"/v1/models/{model['model_id']}/versions"
    for members, status, slug in cases:
        answer = client.post(url, json={"source": "training", **members})
        assert answer.status_code == status, members
        assert answer.json()["type"].endswith(f"/{slug}"), members
    with database.transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM jobs")) == 0


def test_files_and_versions_that_are_not_there_are_404(
    client: TestClient, upload: Make, make_model: Make
) -> None:
    version, other = upload(), make_model("other")
    assert client.get(f"{version['files_url']}/vocab.txt").status_code == 404
    moved = version["files_url"].replace(version["model_id"], other["model_id"])
    assert client.get(moved).status_code == 404
    assert client.get("/v1/models/mdl_none/versions").status_code == 404
    assert client.get("/v1/models/mdl_none/lineage").status_code == 404


def _add(database: Database, model: dict[str, Any], dataset_id: str, **members: Any) -> Any:
    with database.transaction() as session:
        return service.add_version(
            session,
            **{
                "model_id": model["model_id"],
                "parent_id": None,
                "lineage_id": None,
                "dataset_id": dataset_id,
                "source": "training",
                "checkpoint_sha256": "a" * 64,
                "weights_sha256": "b" * 64,
                "files": {"model.safetensors": ("b" * 64, 8)},
                "recipe": {},
                "job_id": "job_x",
                **members,
            },
        )


def test_lineage_goes_from_the_trained_version_to_its_tip(
    client: TestClient, make_model: Make, make_dataset: Make, database: Database
) -> None:
    model, dataset_id = make_model(), make_dataset()["dataset_id"]
    first = _add(database, model, dataset_id, lineage_id="ver_mine")
    assert first.version_id == "ver_mine"
    other = _add(database, model, dataset_id)
    second = _add(
        database,
        model,
        dataset_id,
        parent_id="ver_mine",
        lineage_id="ver_mine",
        source="unlearning",
    )
    with database.transaction() as session:
        tip = queries.tip(session, "ver_mine")
        learned = queries.learned_versions(session, dataset_id)
        chain = queries.lineage(session, "ver_mine")
    assert tip is not None
    assert tip.version_id == second.version_id
    assert {version.version_id for version in learned} == {second.version_id, other.version_id}
    assert [version.number for version in chain] == [1, 3]
    shown = client.get(f"/v1/models/{model['model_id']}/lineage").json()["lineages"]
    assert [(item["lineage_id"], item["tip_version_id"]) for item in shown] == [
        ("ver_mine", second.version_id),
        (other.lineage_id, other.version_id),
    ]


def test_numbers_of_versions_have_neither_gaps_nor_repeats(
    make_model: Make, make_dataset: Make, database: Database
) -> None:
    model, dataset_id = make_model(), make_dataset()["dataset_id"]
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda _: _add(database, model, dataset_id), range(16)))
    assert sorted(version.number for version in versions) == list(range(1, 17))
