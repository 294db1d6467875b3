"""Trainings over HTTP that start from a model which transformers saved, with the real trainer."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.numpy import load_file, save_file
from transformers import BlipForImageTextRetrieval, CLIPModel

from engine.families import Blip, Clip
from engine.families.blip import SPECIAL as BLIP_SPECIAL
from engine.families.blip import own_sizes as blip_sizes
from engine.families.clip import SPECIAL as CLIP_SPECIAL
from engine.families.clip import _own_sizes as clip_sizes
from engine.tokenizers import SpecialTokens, train_tokenizer
from tests.worker.worker_world import World, new_world
from worker.context import Context
from worker.pipeline import run_job

NAME = "published"
TEXTS = ["the digits one two three", "four five six seven eight nine zero"]
KINDS: dict[str, tuple[Any, Any, Any, SpecialTokens]] = {
    "clip": (Clip, CLIPModel, clip_sizes, CLIP_SPECIAL),
    "blip": (Blip, BlipForImageTextRetrieval, blip_sizes, BLIP_SPECIAL),
}


def publish(family: str, root: Path) -> Path:
    """Save a small model of a family with random weights, as transformers does."""
    kind, model, sizes, special = KINDS[family]
    tokenizer = train_tokenizer(TEXTS, 300, special)
    config = kind.tiny().model_copy(update={"vocabulary": tokenizer.vocabulary})
    torch.manual_seed(3)
    folder = root / NAME
    model(sizes(config, tokenizer)).save_pretrained(folder)
    tokenizer.save(folder, config.max_text_tokens)
    return folder


@pytest.fixture
def start(client: TestClient, context: Context, digits: Path) -> Callable[..., Any]:
    """Give a function that trains from a published model of a family."""

    def train(family: str, **training: Any) -> tuple[World, dict[str, Any]]:
        world = new_world(client, digits)
        model = {"name": family, "family": family, "task": "retrieval"}
        world = World(client, world.dataset_id, world.post("/v1/models", model)["model_id"])
        body = {
            "source": "training",
            "dataset_id": world.dataset_id,
            "config": {"pretrained": NAME},
            "training": {"epochs": 1, "batch_size": 16, **training},
        }
        job_id = world.post(f"/v1/models/{world.model_id}/versions", body)["job_id"]
        run_job(context, job_id)
        return world, world.job(job_id)

    return train


def stored(context: Context, version: dict[str, Any]) -> Path:
    local = context.storage.local_path(f"checkpoints/{version['checkpoint_sha256']}")
    assert local is not None
    return local


@pytest.mark.parametrize("family", list(KINDS))
def test_a_training_starts_from_the_weights_that_the_name_stands_for(
    start: Callable[..., Any], context: Context, family: str
) -> None:
    published = publish(family, context.settings.pretrained)
    # At such a rate training changes nothing that a tolerance would show.
    world, job = start(family, learning_rate=1e-7)
    assert job["status"] == "succeeded", job["error"]
    checkpoint = stored(context, world.versions()[0])
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (checkpoint, published))
    shared = ours.keys() & theirs.keys()
    assert len(shared) > 0.9 * len(theirs)
    for name in shared:
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-4)
    card = json.loads((checkpoint / "lethe.json").read_text())
    assert card["initial_config"]["pretrained"] == NAME
    [record] = card["started_from"]
    assert record["field"] == "pretrained"
    assert len(record["sha256"]) == 64
    place = str(context.settings.pretrained).encode()
    assert not any(place in file.read_bytes() for file in checkpoint.iterdir())


def test_an_albef_starts_from_the_checkpoint_of_another(
    start: Callable[..., Any], context: Context, original: Path
) -> None:
    shutil.copytree(original, context.settings.pretrained / NAME)
    world, job = start("albef", learning_rate=1e-7)
    assert job["status"] == "succeeded", job["error"]
    checkpoint = stored(context, world.versions()[0])
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (checkpoint, original))
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        np.testing.assert_allclose(ours[name], expected, atol=1e-4)


def test_what_starts_again_starts_from_the_same_bytes_or_not_at_all(
    start: Callable[..., Any], context: Context
) -> None:
    weights = publish("clip", context.settings.pretrained) / "model.safetensors"
    world, _ = start("clip")
    first = world.forget("digits-00000", method="retrain", params={})
    run_job(context, first["jobs"][0]["job_id"])
    assert world.request(first["request_id"])["status"] == "completed"
    changed = {name: np.asarray(value + 1) for name, value in load_file(weights).items()}
    save_file(changed, weights, metadata={"format": "pt"})
    second = world.forget("digits-00001", method="retrain", params={})
    run_job(context, second["jobs"][0]["job_id"])
    job = world.job(second["jobs"][0]["job_id"])
    assert (job["status"], len(job["attempts"])) == ("failed", 1)
    assert "install that version" in job["error"]["message"]


def test_a_model_of_another_kind_ends_the_job_with_a_sentence(
    start: Callable[..., Any], context: Context
) -> None:
    publish("blip", context.settings.pretrained)
    _, job = start("clip")
    assert (job["status"], len(job["attempts"])) == ("failed", 1)
    assert "of the kind 'blip'; 'clip' is needed" in job["error"]["message"]
