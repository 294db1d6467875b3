from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.core.settings import Settings
from app.registry.catalogue import catalogue
from app.registry.checkpoints import check_content
from app.registry.errors import FileRefused, ParametersInvalid
from app.registry.pretrained import folders, foreign, misplaced


@pytest.mark.parametrize("name", ["/etc", "../weights", "someone/bert", "", 7, ["minilm"]])
def test_a_folder_or_hub_name_is_pointed_at(name: object) -> None:
    found = list(foreign({"steps": [{"pretrained_text": name}]}))
    assert [fault["pointer"] for fault in found] == ["#/steps/0/pretrained_text"]


@pytest.mark.parametrize("name", ["auto", "minilm", None])
def test_installed_encoders_and_none_are_accepted(name: str | None) -> None:
    assert not list(foreign({"pretrained": name, "pretrained_sha256": "ab" * 32}))


def test_a_configuration_cannot_name_a_folder() -> None:
    with pytest.raises(ParametersInvalid) as refused:
        catalogue().check_config("albef", {"pretrained_text": "/etc"})
    assert refused.value.pointers[0]["pointer"] == "#/config/pretrained_text"


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("albef", {"pretrained": "minilm"}),
        ("albef", {"pretrained_vision": "minilm"}),
        ("albef", {"pretrained_text": "auto"}),
        ("blip", {"pretrained": "auto"}),
        ("clip", {"pretrained": "minilm"}),
    ],
)
def test_an_installed_encoder_of_another_kind_is_refused_at_its_field(
    family: str, config: dict[str, str]
) -> None:
    with pytest.raises(ParametersInvalid) as refused:
        catalogue().check_config(family, config)
    (fault,) = refused.value.pointers
    assert fault["pointer"] == f"#/config/{next(iter(config))}"
    assert "null expected" in fault["detail"]


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("albef", {"pretrained_text": "minilm", "pretrained": None}),
        ("gcn_bert", {"pretrained": "auto"}),
        ("gcn_bert", {"pretrained": "minilm"}),
        ("gcn_bert", {"pretrained": None}),
    ],
)
def test_an_installed_encoder_where_it_fits_is_accepted(
    family: str, config: dict[str, str | None]
) -> None:
    catalogue().check_config(family, config)


def test_a_whole_pretrained_albef_leaves_no_room_for_parts_of_another() -> None:
    with pytest.raises(ParametersInvalid) as refused:
        catalogue().check_config("albef", {"pretrained": "minilm", "pretrained_text": "minilm"})
    assert [fault["pointer"] for fault in refused.value.pointers] == ["#/config/pretrained_text"]


def test_a_size_that_no_machine_has_is_refused() -> None:
    with pytest.raises(ParametersInvalid):
        catalogue().check_config("albef", {"hidden_size": 100_000_000})


@pytest.mark.parametrize("path", ["config.json", "lethe.json"])
def test_an_uploaded_checkpoint_cannot_name_a_folder(path: str, tmp_path: Path) -> None:
    file = tmp_path / path
    file.write_text('{"initial_config": {"pretrained": "/etc"}}')
    with pytest.raises(FileRefused, match="not installed"):
        check_content(path, file, file.stat().st_size)


def put_model(root: Path, name: str, weights: str = "model.safetensors") -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / weights).write_bytes(b"")
    return folder


def test_models_of_the_root_are_listed_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "root"
    assert folders(root) == []
    for name in ("clip-b32", "blip.base", "minilm", ".hidden", "with space"):
        put_model(root, name)
    put_model(root, "pickled", "pytorch_model.bin")
    (root / "out").symlink_to(put_model(tmp_path, "elsewhere"))
    (root / "same").symlink_to(root / "clip-b32")
    (root / "a-file").write_text("")
    assert folders(root) == ["blip.base", "clip-b32", "same"]


def test_a_refusal_names_twenty_models_and_counts_the_others() -> None:
    schema = {"properties": {"pretrained": {}}}
    names = [f"model-{number:02}" for number in range(25)]
    [fault] = misplaced(schema, {"pretrained": "other"}, "#/config", names)
    assert "model-19 and 5 more, or null expected" in fault["detail"]
    assert not list(misplaced(schema, {"pretrained": "model-24"}, "#/config", names))


Make = Callable[..., dict[str, Any]]


@pytest.fixture
def post(client: TestClient, make_model: Make, make_dataset: Make) -> Callable[..., Any]:
    """Give a function that posts a version of a CLIP with a configuration."""
    model, dataset = make_model(family="clip"), make_dataset()
    url = f"/v1/models/{model['model_id']}/versions"

    def send(source: str = "training", **body: Any) -> Any:
        given = {"source": source, "dataset_id": dataset["dataset_id"], **body}
        return client.post(url, json=given)

    return send


def test_a_training_may_start_from_a_model_of_the_root(
    post: Callable[..., Any], settings: Settings
) -> None:
    put_model(settings.pretrained, "clip-b32")
    answer = post(config={"pretrained": "clip-b32"})
    assert answer.status_code == 202, answer.text
    assert answer.json()["spec"]["config"] == {"pretrained": "clip-b32"}


@pytest.mark.parametrize("name", ["clip-b16", "../pretrained/clip-b32", "openai/clip", "{root}"])
def test_a_model_that_is_not_there_is_refused_with_those_that_are(
    post: Callable[..., Any], settings: Settings, name: str
) -> None:
    root = put_model(settings.pretrained, "clip-b32")
    put_model(settings.pretrained, "clip-l14")
    answer = post(config={"pretrained": name.format(root=root)})
    assert answer.status_code == 422
    [error] = answer.json()["errors"]
    assert error["pointer"] == "#/config/pretrained"
    assert "one of clip-b32, clip-l14, or null expected" in error["detail"]


def test_the_recipe_of_an_upload_names_no_model_of_the_root(
    post: Callable[..., Any], settings: Settings
) -> None:
    put_model(settings.pretrained, "clip-b32")
    answer = post("upload", recipe={"config": {"pretrained": "clip-b32"}})
    assert answer.status_code == 422
    assert [e["pointer"] for e in answer.json()["errors"]] == ["#/recipe/config/pretrained"]
