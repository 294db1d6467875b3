"""Every family, task and method over HTTP, from training to a certificate, with the real trainer.

Each method and update is filed once, on a family and task that it applies to; which ones these are says
the catalogue, so that a new one has to be added here.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.registry.catalogue import catalogue
from tests.graphs import write_graphs
from tests.worker.worker_world import RECIPE, World
from worker.context import Context
from worker.pipeline import run_job

Row = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A family with a task, and what is asked of it: methods with updates, in this order.

    DtD comes last: its noise leaves a model that no other method could change any more.
    """

    family: str
    task: str
    asked: tuple[tuple[str, str], ...]


KINDS = (
    Kind(
        "gcn_bert",
        "graph_text",
        (("finetune", "fusion"), ("neggrad", "all"), ("multidelete", "fusion"), ("retrain", "all")),
    ),
    Kind(
        "albef",
        "visual_entailment",
        (("neggrad", "fusion"), ("multidelete", "all"), ("lcodec", "all"), ("dtd", "all")),
    ),
    Kind(
        "blip",
        "nlvr",
        (("ul", "all"), ("lcodec", "fusion"), ("erm_ktp", "all"), ("dtd", "fusion")),
    ),
    Kind("clip", "retrieval", (("ul", "fusion"), ("finetune", "all"))),
)
SHORT = {"epochs": 1, "least_steps": 1}


def _as_they_are(rows: list[Row]) -> Iterator[Row]:
    yield from rows


def _labelled(rows: list[Row]) -> Iterator[Row]:
    yield from ({**row, "label": at % 3} for at, row in enumerate(rows))


def _in_twos(rows: list[Row]) -> Iterator[Row]:
    """Give each row a second image, which is that of the row before it."""
    for at, row in enumerate(rows):
        images = [row["image"], rows[at - 1]["image"]]
        without = {name: value for name, value in row.items() if name != "item_id"}
        yield {**without, "image": images, "label": at % 2}


CHANGES: dict[str, Callable[[list[Row]], Iterator[Row]]] = {
    "retrieval": _as_they_are,
    "visual_entailment": _labelled,
    "nlvr": _in_twos,
    "graph_text": _as_they_are,
}


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    write_graphs(folder)
    return folder


def _world(client: TestClient, kind: Kind, root: Path) -> tuple[World, list[str]]:
    """Register data set and model of a kind; return them with the ids of the training pairs."""
    lines = (root / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    rows = list(CHANGES[kind.task]([json.loads(line) for line in lines]))
    modality = "graph" if kind.task == "graph_text" else "image"
    dataset = {"name": kind.task, "modality": modality, "root": str(root)}
    dataset_id = client.post("/v1/datasets", json=dataset).json()["dataset_id"]
    answer = client.put(
        f"/v1/datasets/{dataset_id}/pairs",
        content="\n".join(map(json.dumps, rows)),
        headers={"Content-Type": "application/x-ndjson"},
    )
    assert answer.status_code == 200, answer.text
    model = {"name": kind.family, "family": kind.family, "task": kind.task}
    model_id = client.post("/v1/models", json=model).json()["model_id"]
    ids = [row["id"] for row in rows if row["split"] == "train"]
    return World(client, dataset_id, model_id), ids


def _succeeded(world: World, context: Context, job_id: str) -> Row:
    run_job(context, job_id)
    job = world.job(job_id)
    assert job["status"] == "succeeded", job["error"]
    return job


def _params(method: str) -> Row:
    known = catalogue().methods[method].params_schema["properties"]
    return {name: value for name, value in SHORT.items() if name in known}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.family}-{kind.task}")
def test_deletions_by_every_method_are_audited_and_certified(
    kind: Kind, client: TestClient, context: Context, digits: Path, graphs: Path
) -> None:
    world, ids = _world(client, kind, graphs if kind.task == "graph_text" else digits)
    body = {
        "source": "training",
        "dataset_id": world.dataset_id,
        "config": catalogue().families[kind.family].tiny_config,
        "training": RECIPE,
        "seed": 0,
    }
    version = world.post(f"/v1/models/{world.model_id}/versions", body)
    _succeeded(world, context, str(version["job_id"]))
    for number, (method, update) in enumerate(kind.asked):
        pairs = ids[2 * number : 2 * number + 2]
        request = world.forget(*pairs, method=method, update=update, params=_params(method))
        job = _succeeded(world, context, str(request["jobs"][0]["job_id"]))
        assert (job["spec"]["method"], job["spec"]["update"]) == (method, update)
        done = world.request(str(request["request_id"]))
        assert done["status"] == "completed", done
        place = f"/v1/audit/requests/{request['request_id']}"
        [audited] = world.get(place)["versions"]
        measured = {metric["name"] for metric in audited["audit"]["metrics"]}
        assert {"d_f", "d_test", "mi_ratio", "unseen_auc", "method_seconds"} <= measured
        assert world.get(f"{place}/certificate")["dsseEnvelope"]["payload"]
    assert len(world.versions()) == 1 + len(kind.asked)


def test_every_family_task_method_and_update_is_among_them() -> None:
    known = catalogue()
    assert {kind.family for kind in KINDS} == set(known.families)
    assert {kind.task for kind in KINDS} == set(known.tasks)
    applicable = {
        (name, one.update)
        for name, method in known.methods.items()
        for one in method.applies
        if one.reason is None
    }
    assert {asked for kind in KINDS for asked in kind.asked} == applicable
