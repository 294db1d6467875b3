from pathlib import Path

import pytest

from app.registry.catalogue import catalogue
from app.registry.checkpoints import check_content
from app.registry.errors import FileRefused, ParametersInvalid
from app.registry.pretrained import foreign


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
