"""A training that a dataset cannot serve is refused when it is posted, and not by its job alone."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from app.core.db import Database
from app.registry import fitness
from app.registry.catalogue import Catalogue, Task, catalogue
from engine.data.manifest import load_dataset
from engine.data.pairs import PairDataset
from engine.errors import DataError, EngineError
from engine.families import families
from engine.spec import DataSpec
from engine.tasks import tasks

Make = Callable[..., dict[str, Any]]
JSON_LINES = {"Content-Type": "application/jsonl"}


def pairs(
    labels: Sequence[int | None] = (None,) * 6, images: int = 1, distinct: int = 6, **members: Any
) -> bytes:
    """Return a manifest with a training pair for each label, of ``images`` out of ``distinct``."""
    rows = []
    for number, label in enumerate(labels):
        names = [f"{(number + place) % distinct}.png" for place in range(images)]
        item = {"image": names if images > 1 else names[0]}
        if members.get("modality") == "graph":
            item = {"graph": f"g/subgraphs.npz::{number % distinct}"}
        row = {"id": f"p{number}", **item, "text": f"caption {number}", "split": "train"}
        rows.append(row if label is None else {**row, "label": label})
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


PLAIN, ENTAILMENT, TRUTH = pairs(), pairs([0, 1, 2] * 2), pairs([0, 1] * 3)
TWO, TWO_TRUTH = pairs(images=2), pairs([0, 1] * 3, images=2)
GRAPHS = pairs([0, 1] * 3, modality="graph")
UNLABELLED_GRAPHS = pairs(modality="graph")
RETRIEVAL, VE, NLVR = ("albef", "retrieval"), ("albef", "visual_entailment"), ("blip", "nlvr")
GRAPH_TEXT = ("gcn_bert", "graph_text")
DATASET, CLASSES, IMAGES = "#/dataset_id", "#/config/classes", "#/config/images"

UNFIT = [
    (RETRIEVAL, TWO, {}, {DATASET: "needs 1 image a pair, and pairs of the dataset have 2"}),
    (("clip", "retrieval"), TWO, {}, {DATASET: "needs 1 image a pair"}),
    (RETRIEVAL, pairs(distinct=1), {}, {DATASET: "2 distinct images at least, and the dataset has 1"}),
    (RETRIEVAL, PLAIN, {"images": 2}, {IMAGES: "pairs of the dataset have 1 image: leave it out, or say 1"}),
    (RETRIEVAL, PLAIN, {"classes": 3}, {CLASSES: "the dataset has no labels: leave it out, or say 2"}),
    (RETRIEVAL, TRUTH, {"classes": 5}, {CLASSES: "has labels for 2 classes: leave it out, or say 2"}),
    (("blip", "retrieval"), PLAIN, {"images": 2, "classes": 3}, {IMAGES: "say 1", CLASSES: "say 2"}),
    (VE, PLAIN, {}, {DATASET: "labels 0 to 2 (contradiction, neutral, entailment), and the dataset has no labels"}),
    (VE, TRUTH, {}, {DATASET: "the highest label of the dataset is 1"}),
    (VE, pairs(range(6)), {}, {DATASET: "the highest label of the dataset is 5"}),
    (VE, ENTAILMENT, {"classes": 2}, {CLASSES: "has labels for 3 classes: leave it out, or say 3"}),
    (VE, ENTAILMENT, {"images": 2}, {IMAGES: "say 1"}),
    (NLVR, TRUTH, {}, {DATASET: "needs 2 images a pair, and pairs of the dataset have 1"}),
    (NLVR, TWO, {}, {DATASET: "labels 0 to 1 (false, true), and the dataset has no labels"}),
    (NLVR, pairs([0, 1, 2] * 2, images=2), {}, {DATASET: "highest label of the dataset is 2"}),
    (NLVR, TWO_TRUTH, {"images": 1}, {IMAGES: "have 2 images: leave it out, or say 2"}),
    (GRAPH_TEXT, UNLABELLED_GRAPHS, {}, {DATASET: "needs labels from 0 on, and the dataset has no labels"}),
    (GRAPH_TEXT, pairs([0] * 6, modality="graph"), {}, {DATASET: "2 classes at least, and every label is 0"}),
    (GRAPH_TEXT, GRAPHS, {"classes": 3}, {CLASSES: "has labels for 2 classes: leave it out, or say 2"}),
]  # fmt: skip
FIT = [
    (RETRIEVAL, PLAIN, {}),
    (RETRIEVAL, PLAIN, {"images": 1, "classes": 2}),
    (RETRIEVAL, PLAIN, {"images": None, "classes": None}),
    (RETRIEVAL, TRUTH, {}),
    (RETRIEVAL, pairs(distinct=2), {}),
    (RETRIEVAL, pairs([0] * 6), {"classes": 2}),
    (("clip", "retrieval"), PLAIN, {}),
    (VE, ENTAILMENT, {"images": 1, "classes": 3}),
    (NLVR, TWO_TRUTH, {"images": 2, "classes": 2}),
    (GRAPH_TEXT, GRAPHS, {"classes": 2}),
    (GRAPH_TEXT, pairs(range(6), modality="graph"), {}),
]


def modality_of(kind: tuple[str, str]) -> str:
    return families.get(kind[0]).modality


@pytest.fixture
def post(client: TestClient, make_model: Make, make_dataset: Make) -> Callable[..., Any]:
    """Give a function that posts a version of a model of that kind on pairs of its own."""

    def send(kind: tuple[str, str], manifest: bytes, **version: Any) -> Any:
        model = make_model(family=kind[0], task=kind[1])
        dataset = make_dataset(count=0, modality=modality_of(kind))
        url = f"/v1/datasets/{dataset['dataset_id']}/pairs"
        answer = client.put(url, content=manifest, headers=JSON_LINES)
        assert answer.status_code == 200, answer.text
        body = {"source": "training", "dataset_id": dataset["dataset_id"], **version}
        return client.post(f"/v1/models/{model['model_id']}/versions", json=body)

    return send


def in_the_engine(
    folder: Path, kind: tuple[str, str], manifest: bytes, config: dict[str, Any]
) -> str | None:
    """Return why a run of the engine refuses the training, or None."""
    file = folder / "manifest.jsonl"
    file.write_bytes(manifest)
    data = load_dataset(DataSpec(manifest=file, root=folder))
    family, task = families.get(kind[0]), tasks.get(kind[1])()
    try:
        task.check(data)
        _build(family, config, data)
    except EngineError as error:
        return str(error)
    return None


def _build(family: Any, config: dict[str, Any], data: PairDataset) -> None:
    given = {**family.tiny().model_dump(), **config}
    try:
        family.build(family.config_class.model_validate(given), data, 0)
    except DataError as error:
        if "no such file" not in str(error).lower() and "subgraphs.npz" not in str(error):
            raise  # the items of these pairs are nowhere, which is not asked here


@pytest.mark.parametrize(("kind", "manifest", "config", "expected"), UNFIT)
def test_what_the_job_would_refuse_is_refused_at_once_with_what_would_be_right(
    post: Callable[..., Any],
    database: Database,
    tmp_path: Path,
    kind: tuple[str, str],
    manifest: bytes,
    config: dict[str, Any],
    expected: dict[str, str],
) -> None:
    answer = post(kind, manifest, config=config)
    assert answer.status_code == 422, answer.text
    problem = answer.json()
    assert problem["type"].endswith("/dataset-unfit")
    assert {error["pointer"] for error in problem["errors"]} == set(expected)
    for error in problem["errors"]:
        assert expected[error["pointer"]] in error["detail"]
        assert error["detail"] in problem["detail"]
    with database.transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM jobs")) == 0
    assert in_the_engine(tmp_path, kind, manifest, config)


@pytest.mark.parametrize(("kind", "manifest", "config"), FIT)
def test_what_the_engine_takes_is_taken(
    post: Callable[..., Any],
    tmp_path: Path,
    kind: tuple[str, str],
    manifest: bytes,
    config: dict[str, Any],
) -> None:
    assert in_the_engine(tmp_path, kind, manifest, config) is None
    answer = post(kind, manifest, config=config)
    assert answer.status_code == 202, answer.text


def test_recipe_of_an_upload_is_held_to_its_dataset_too(
    post: Callable[..., Any], database: Database
) -> None:
    answer = post(VE, PLAIN, source="upload", recipe={"config": {"images": 2}})
    assert answer.status_code == 422, answer.text
    pointers = [error["pointer"] for error in answer.json()["errors"]]
    assert pointers == ["#/dataset_id", "#/recipe/config/images"]
    with database.transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM versions")) == 0


@pytest.mark.parametrize("member", ["config", "training"])
def test_faults_of_an_uploads_recipe_are_pointed_to_where_they_stand(
    post: Callable[..., Any], member: str
) -> None:
    recipe = {member: {"dropout" if member == "config" else "epochs": "x"}}
    answer = post(RETRIEVAL, PLAIN, source="upload", recipe=recipe)
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert error["pointer"].startswith(f"#/recipe/{member}/")


def test_dataset_tells_what_its_manifest_holds(client: TestClient, make_dataset: Make) -> None:
    dataset = make_dataset(count=0)
    names = ("items_per_pair", "item_count", "label_classes")
    assert [dataset[name] for name in names] == [None, None, None]
    url = f"/v1/datasets/{dataset['dataset_id']}/pairs"
    # Pairs 0 1 and 1 2 and 2 3: four images.
    manifest = pairs([0, 4, 1], images=2)
    ready = client.put(url, content=manifest, headers=JSON_LINES).json()
    assert [ready[name] for name in names] == [2, 4, 5]
    again = client.put(url, content=manifest, headers=JSON_LINES).json()
    assert again == ready
    plain = make_dataset("plain", count=10)
    assert [plain[name] for name in names] == [1, 5, 0]


def test_what_was_not_kept_of_an_old_manifest_is_left_to_the_engine(
    client: TestClient, make_model: Make, make_dataset: Make, database: Database
) -> None:
    model, dataset = make_model(task="visual_entailment"), make_dataset()
    url = f"/v1/models/{model['model_id']}/versions"
    body = {"source": "training", "dataset_id": dataset["dataset_id"], "config": {"images": 2}}
    assert client.post(url, json=body).status_code == 422
    with database.transaction() as session:
        session.execute(
            text(
                "UPDATE datasets SET items_per_pair = NULL, item_count = NULL, label_classes = NULL"
            )
        )
    assert client.post(url, json=body).status_code == 202


def test_task_of_another_distribution_is_known_by_what_it_states_alone(
    post: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = catalogue()
    task = known.tasks["retrieval"].model_copy(update={"least_items": 7, "labelled": True})
    changed = _with_task(known, "retrieval", task)
    monkeypatch.setattr(fitness, "catalogue", lambda: changed)
    problem = post(RETRIEVAL, PLAIN).json()
    details = [error["detail"] for error in problem["errors"]]
    assert "7 distinct images at least, and the dataset has 6" in details[0]
    assert "labels from 0 on" in details[1]


def _with_task(known: Catalogue, name: str, task: Task) -> Catalogue:
    return known.model_copy(update={"tasks": {**known.tasks, name: task}})


def test_patience_without_validation_pairs_is_refused(
    post: Callable[..., Any], database: Database
) -> None:
    answer = post(RETRIEVAL, PLAIN, training={"patience": 3})
    assert answer.status_code == 422, answer.text
    [error] = answer.json()["errors"]
    assert error["pointer"] == "#/training/patience"
    assert "no pair with the split 'val'" in answer.json()["detail"]
    with database.transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM jobs")) == 0


def test_patience_where_the_last_epoch_is_kept_is_refused(post: Callable[..., Any]) -> None:
    manifest = PLAIN + b'{"id": "v", "image": "0.png", "text": "v", "split": "val"}\n'
    answer = post(RETRIEVAL, manifest, training={"patience": 3, "keep": "last"})
    assert answer.status_code == 422, answer.text
    [error] = answer.json()["errors"]
    assert error["pointer"] == "#/training/patience"
    assert "keeps the last epoch" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("manifest", "training"),
    [
        (PLAIN, {"patience": None}),
        (PLAIN, {"patience": None, "keep": "last"}),
        (PLAIN + b'{"id": "v", "image": "0.png", "text": "v", "split": "val"}\n', {"patience": 3}),
    ],
)
def test_patience_with_validation_pairs_or_none_is_taken(
    post: Callable[..., Any], manifest: bytes, training: dict[str, Any]
) -> None:
    assert post(RETRIEVAL, manifest, training=training).status_code == 202
