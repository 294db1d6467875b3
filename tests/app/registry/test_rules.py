"""Rules between the members of a configuration are checked when it is posted."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import text

from app.core.db import Database
from app.registry import service
from app.registry.catalogue import Catalogue, catalogue, check
from app.registry.errors import ParametersInvalid
from app.registry.rules import MULTIPLE_OF

Make = Callable[..., dict[str, Any]]


class Sizes(BaseModel):
    """A configuration as a family declares it."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            MULTIPLE_OF: [["image_size", "patch_size"], ["width", "heads"], ["width", "groups"]],
            "if": {"properties": {"pretrained": {"type": "null"}}, "required": ["pretrained"]},
            "then": {"properties": {"trained_layers": {"const": 0}}},
        },
    )

    image_size: tuple[int, int] = (64, 32)
    patch_size: tuple[int, int] | int = (8, 8)
    width: int = Field(default=128, ge=8)
    heads: int = Field(default=4, ge=1)
    groups: int | None = None
    layers: int = Field(default=4, multiple_of=2)
    pretrained: str | None = "auto"
    trained_layers: int = 0


SCHEMA = Sizes.model_json_schema()


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"image_size": [16, 24]},
        {"image_size": [8, 8], "patch_size": 8},
        {"width": 9, "heads": 3},
        {"width": 9, "heads": 3, "groups": 9},
        {"heads": 1, "groups": None},
        {"width": 8.0},
        {"pretrained": "auto", "trained_layers": 2},
    ],
)
def test_sizes_that_fit_are_accepted(config: dict[str, Any]) -> None:
    check(SCHEMA, config, "#/config")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            {"image_size": [64, 36]},
            {"#/config/image_size/1": "image_size 36 is no multiple of patch_size 8"},
        ),
        (
            {"image_size": [4, 8]},
            {"#/config/image_size/0": "image_size 4 is no multiple of patch_size 8"},
        ),
        (
            {"image_size": [0, 8]},
            {"#/config/image_size/0": "image_size 0 is no multiple of patch_size 8"},
        ),
        (
            {"patch_size": [16, 5]},
            {"#/config/patch_size/1": "image_size 32 is no multiple of patch_size 5"},
        ),
        (
            {"patch_size": 64},
            {"#/config/patch_size": "image_size 32 is no multiple of patch_size 64"},
        ),
        (
            {"patch_size": 0, "image_size": [8, 8]},
            {
                "#/config/image_size/0": "image_size 8 is no multiple of patch_size 0",
                "#/config/image_size/1": "image_size 8 is no multiple of patch_size 0",
            },
        ),
        ({"width": 10}, {"#/config/width": "width 10 is no multiple of heads 4"}),
        ({"heads": 3}, {"#/config/heads": "width 128 is no multiple of heads 3"}),
        ({"groups": 5}, {"#/config/groups": "width 128 is no multiple of groups 5"}),
        ({"layers": 3}, {"#/config/layers": "3 is not a multiple of 2"}),
        (
            {"pretrained": None, "trained_layers": 1},
            {"#/config/trained_layers": "expected 0; 1 came"},
        ),
        ({"heads": "x"}, {"#/config/heads": 'expected a whole number; "x" came'}),
    ],
)
def test_sizes_that_do_not_fit_are_refused_at_the_field(
    config: dict[str, Any], expected: dict[str, str]
) -> None:
    with pytest.raises(ParametersInvalid) as refused:
        check(SCHEMA, config, "#/config")
    found = {fault["pointer"]: fault["detail"] for fault in refused.value.pointers}
    assert found == expected


def test_message_about_a_long_value_is_short() -> None:
    with pytest.raises(ParametersInvalid) as refused:
        check(SCHEMA, {"heads": "x" * 10_000}, "#/config")
    (fault,) = refused.value.pointers
    assert fault["detail"] == f'expected a whole number; "{"x" * 59}... came'


def test_engine_declares_its_rules_where_the_service_reads_them() -> None:
    """The keyword is no word of JSON Schema, so that other validators pass over it."""
    assert SCHEMA[MULTIPLE_OF] == [
        ["image_size", "patch_size"],
        ["width", "heads"],
        ["width", "groups"],
    ]
    Draft202012Validator.check_schema(SCHEMA)


def test_rules_of_the_catalogue_name_members_and_its_small_configurations_follow_them() -> None:
    for name, family in catalogue().families.items():
        members = family.config_schema["properties"]
        for pair in family.config_schema.get(MULTIPLE_OF, ()):
            assert set(pair) <= set(members), name
        catalogue().check_config(name, family.tiny_config)


@pytest.mark.parametrize(
    "version",
    [
        {"source": "training", "config": {"image_size": [64, 36]}},
        {"source": "upload", "recipe": {"config": {"image_size": [64, 36]}}},
    ],
)
def test_configuration_that_cannot_be_is_refused_at_the_post(
    client: TestClient,
    make_model: Make,
    make_dataset: Make,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    version: dict[str, Any],
) -> None:
    monkeypatch.setattr(service, "catalogue", _catalogue)
    url = f"/v1/models/{make_model()['model_id']}/versions"
    answer = client.post(url, json={"dataset_id": make_dataset()["dataset_id"], **version})
    assert answer.status_code == 422, answer.text
    assert answer.json()["type"].endswith("/parameters-invalid")
    assert answer.json()["errors"][0]["pointer"].endswith("/config/image_size/1")
    with database.transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM versions")) == 0
        assert session.scalar(text("SELECT count(*) FROM jobs")) == 0


def _catalogue() -> Catalogue:
    """Return the catalogue with a family whose schema has rules."""
    known = catalogue()
    family = known.families["albef"].model_copy(update={"config_schema": SCHEMA})
    return known.model_copy(update={"families": {**known.families, "albef": family}})
