"""What no text, number or column can hold is refused where the body is read, at its place in it."""

import json
from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from pydantic import BaseModel

from app.core.json_bodies import Body, JsonRoute, read_json
from app.core.problems import MEDIA_TYPE
from app.main import ROUTERS

JSON = {"Content-Type": "application/json"}
Make = Callable[..., dict[str, Any]]

NUL, SURROGATE, LOW_SURROGATE = '"a\\u0000b"', '"a\\ud800b"', '"\\uDC00"'
TEXTS = [NUL, SURROGATE, LOW_SURROGATE]
NUMBERS = ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 400, "9" * 5000]
MODEL = '{"name": %s, "family": "albef", "task": "retrieval"}'
TRAINING = '{"source": "training", "dataset_id": "ds_1", %s}'
DELETION = '{"dataset_id": "ds_1", "targets": {"pair_ids": ["a"]}, %s}'

PLACES = [
    ("/v1/models", MODEL, "#/name"),
    ("/v1/datasets", '{"name": "d", "modality": "image", "root": %s}', "#/root"),
    ("/v1/models/mdl_1/versions", TRAINING % '"seed": %s', "#/seed"),
    ("/v1/models/mdl_1/versions", TRAINING % '"config": {"a~/b": [0, %s]}', "#/config/a~0~1b/1"),
    ("/v1/models/mdl_1/versions", TRAINING % '"training": {"epochs": %s}', "#/training/epochs"),
    ("/v1/models/mdl_1/versions", '{"source": %s, "dataset_id": "ds_1"}', "#/source"),
    (
        "/v1/models/mdl_1/versions/ver_1/finalize",
        '{"checkpoint_sha256": %s}',
        "#/checkpoint_sha256",
    ),
    ("/v1/deletion-requests", DELETION % '"reason": %s', "#/reason"),
    ("/v1/deletion-requests", DELETION % '"params": {"x": {"y": %s}}', "#/params/x/y"),
    ("/v1/deletion-requests", DELETION % '"versions": ["v", %s]', "#/versions/1"),
    (
        "/v1/deletion-requests",
        '{"dataset_id": "ds_1", "targets": {"text_ids": ["a", %s]}}',
        "#/targets/text_ids/1",
    ),
]


def post(client: TestClient, url: str, content: str) -> dict[str, Any]:
    answer = client.post(url, content=content, headers=JSON)
    assert answer.status_code == 422, answer.text
    assert answer.headers["Content-Type"] == MEDIA_TYPE
    problem: dict[str, Any] = answer.json()
    assert problem["type"].endswith("/invalid")
    return problem


@pytest.mark.parametrize(("url", "template", "pointer"), PLACES)
def test_value_that_nothing_can_keep_is_refused_at_its_pointer(
    client: TestClient, url: str, template: str, pointer: str
) -> None:
    for value in TEXTS:
        (error,) = post(client, url, template % value)["errors"]
        assert error["pointer"] == pointer
        assert "text" in error["detail"]
        assert ("NUL" in error["detail"]) == (value == NUL)
    for value in NUMBERS:
        (error,) = post(client, url, template % value)["errors"]
        assert error["pointer"] == pointer
        assert "finite number" in error["detail"]


@pytest.mark.parametrize("name", TEXTS)
def test_name_of_a_member_that_nothing_can_keep_is_refused_at_its_object(
    client: TestClient, name: str
) -> None:
    content = TRAINING % f'"config": {{"a": [{{}}, {{{name}: 1}}]}}'
    (error,) = post(client, "/v1/models/mdl_1/versions", content)["errors"]
    assert error["pointer"] == "#/config/a/1"
    assert "name of a member" in error["detail"]


def test_every_such_value_is_named_up_to_20(client: TestClient) -> None:
    values = ", ".join(["NaN", '"good"', NUL] * 20)
    problem = post(client, "/v1/models", f"[{values}]")
    places = [error["pointer"] for error in problem["errors"]]
    assert places == [f"#/{index}" for index in range(30) if index % 3 != 1]


def test_text_of_any_real_characters_and_any_finite_number_passes(client: TestClient) -> None:
    """A pair of surrogates is one character, and backslashes may stand before a ``u``."""
    for name in ('"\\ud83d\\ude00"', '"\\\\u0000"', '"\\\\ud800"', '"Zwölf \\u20ac"'):
        answer = client.post("/v1/models", content=MODEL % name, headers=JSON)
        assert answer.status_code == 201, answer.text
        assert answer.json()["name"] == json.loads(name)
    answer = client.post(
        "/v1/models", content=b"\xef\xbb\xbf" + (MODEL % '"bom"').encode(), headers=JSON
    )
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("{", "line 1, column 2"),
        ('{"name": "a",\n  "family": albef}', "line 2, column 13"),
        ('{"name": "a\nb"}', "line 1, column 12"),
        ('{"ö": 1} x', "line 1, column 10"),
        ("nothing", "line 1, column 1"),
    ],
)
def test_broken_json_is_named_by_line_and_column_and_points_to_the_whole_body(
    client: TestClient, content: str, place: str
) -> None:
    for url in ("/v1/models", "/v1/deletion-requests"):
        problem = post(client, url, content)
        (error,) = problem["errors"]
        assert error["pointer"] == "#"
        assert place in error["detail"]
        assert place in problem["detail"]


def test_body_that_is_no_utf8_is_malformed_with_the_byte(client: TestClient) -> None:
    for content in (
        b'{"name": "\xff"}',
        b'{"name": "\xed\xa0\x80"}',
        '{"name": "a"}'.encode("utf-16"),
    ):
        answer = client.post("/v1/models", content=content, headers=JSON)
        assert answer.status_code == 400, answer.text
        assert answer.json()["type"].endswith("/malformed")
        assert "UTF-8" in answer.json()["detail"]


@pytest.mark.parametrize("depth", [200, 600, 900, 5_000, 100_000])
def test_body_that_is_nested_very_deeply_is_the_callers_error(
    client: TestClient, depth: int
) -> None:
    for inner in ("1", "NaN"):
        content = TRAINING % f'"config": {{"a": {"[" * depth}{inner}{"]" * depth}}}'
        answer = client.post("/v1/models/mdl_1/versions", content=content, headers=JSON)
        assert answer.status_code in {400, 404, 422}, answer.text


@pytest.mark.parametrize(
    ("url", "content", "pointers"),
    [
        (
            "/v1/models",
            '{"name": "a", "family": "albef", "name": "b", "task": "retrieval"}',
            ["#/name"],
        ),
        ("/v1/models", '{"a": 1, "b": 2, "a": 1, "\\u0062": 2}', ["#/a", "#/b"]),
        (
            "/v1/models/mdl_1/versions",
            TRAINING % '"config": {"l": [{"a/b": 1, "a/b": 1}]}',
            ["#/config/l/0/a~1b"],
        ),
        (
            "/v1/deletion-requests",
            '{"targets": {"pair_ids": ["a"]}, "targets": {"pair_ids": ["b"]}}',
            ["#/targets"],
        ),
    ],
)
def test_member_that_is_there_twice_is_refused_at_its_pointer(
    client: TestClient, url: str, content: str, pointers: list[str]
) -> None:
    errors = post(client, url, content)["errors"]
    assert [error["pointer"] for error in errors] == pointers
    assert all("more than once" in error["detail"] for error in errors)


@pytest.mark.parametrize("value", ["true", '"5"', "5.5", "[5]"])
@pytest.mark.parametrize(
    ("url", "template", "pointer"),
    [
        ("/v1/models/mdl_1/versions", TRAINING % '"seed": %s', "#/seed"),
        (
            "/v1/models/mdl_1/versions",
            '{"source": "upload", "recipe": {"seed": %s}}',
            "#/recipe/seed",
        ),
        (
            "/v1/datasets",
            '{"name": "d", "modality": "image", "root": "/d", "classes": %s}',
            "#/classes",
        ),
        (
            "/v1/deletion-requests",
            DELETION % '"audit": {"reference_models": %s}',
            "#/audit/reference_models",
        ),
    ],
)
def test_no_value_of_another_type_passes_for_a_whole_number(
    client: TestClient, url: str, template: str, pointer: str, value: str
) -> None:
    (error,) = post(client, url, template % value)["errors"]
    assert error["pointer"] == pointer
    assert error["detail"].startswith("expected a whole number; ")


@pytest.mark.parametrize("value", ["1", '"true"', "null"])
def test_nothing_but_true_and_false_passes_for_them(client: TestClient, value: str) -> None:
    content = f'{{"source": "upload", "evaluate": {value}}}'
    (error,) = post(client, "/v1/models/mdl_1/versions", content)["errors"]
    assert error["pointer"] == "#/evaluate"
    assert error["detail"].startswith("expected true or false; ")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5.0", 5),
        ("1e2", 100),
        ("-0.0", 0),
        ("9007199254740992.0", 2**53),
        ("0.5", 0.5),
        ("1e300", 1e300),
    ],
)
def test_numbers_of_one_value_are_one_number_however_they_are_spelt(
    text: str, value: float
) -> None:
    read = read_json(text.encode())
    assert (read, type(read)) == (value, type(value))


def _routes(app: FastAPI) -> Iterator[APIRoute]:
    for router in ROUTERS:
        yield from (route for route in router.routes if isinstance(route, APIRoute))


def test_every_route_with_a_json_body_reads_it_so(app: FastAPI) -> None:
    with_body = [route for route in _routes(app) if route.body_field is not None]
    assert len(with_body) >= 5
    assert [route.path for route in with_body if not isinstance(route, JsonRoute)] == []


def test_every_model_of_a_body_takes_no_value_for_one_of_another_type(app: FastAPI) -> None:
    found = [
        model
        for route in _routes(app)
        if route.body_field is not None
        for model in _models(route.body_field.field_info.annotation)
    ]
    assert len(found) >= 5
    assert [model for model in found if not issubclass(model, Body)] == []


def _models(kind: Any) -> Iterator[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
        for field in kind.model_fields.values():
            yield from _models(field.annotation)
    for inner in get_args(kind):
        yield from _models(inner)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/jobs/{}",
        "/v1/jobs/{}/events",
        "/v1/datasets/{}",
        "/v1/models/{}",
        "/v1/models/{}/lineage",
        "/v1/models/mdl_1/versions/{}",
        "/v1/models/mdl_1/versions/ver_1/files/{}",
        "/v1/deletion-requests/{}",
        "/v1/audit/versions/{}",
        "/v1/audit/requests/{}",
        "/v1/audit/requests/{}/certificate",
    ],
)
def test_id_with_a_nul_character_is_not_found_like_any_other_unknown_id(
    client: TestClient, path: str
) -> None:
    for odd in ("%00", "a%00b"):
        answer = client.get(path.format(odd))
        assert answer.status_code == 404, answer.text
        assert answer.json()["type"].endswith("/not-found")
        assert "NUL" in answer.json()["detail"]


def test_method_other_than_get_on_such_an_id_is_not_found_too(client: TestClient) -> None:
    assert client.post("/v1/jobs/%00/cancel").status_code == 404
    assert client.delete("/v1/deletion-requests/%00").status_code == 404
    assert client.put("/v1/datasets/%00/pairs", content=b"{}").status_code == 404


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("/v1/deletion-requests?dataset_id=a%00b", "dataset_id"),
        ("/v1/deletion-requests?limit=5&dataset_id=%00", "dataset_id"),
        ("/v1/jobs?status=%00", "status"),
        ("/v1/models?cursor=%00", "cursor"),
        ("/v1/models?cursor=WyJhXHUwMDAwYiJd", "cursor"),  # ["a\u0000b"]
        ("/v1/models?cursor=WyJcdWQ4MDAiXQ", "cursor"),  # ["\ud800"]
    ],
)
def test_query_with_a_nul_character_is_refused_by_its_parameter(
    client: TestClient, query: str, parameter: str
) -> None:
    answer = client.get(query)
    assert answer.status_code == 422, answer.text
    assert [error["parameter"] for error in answer.json()["errors"]] == [parameter]


@pytest.mark.parametrize("key", ["a\0b", "\0", "a\x7f"])
def test_idempotency_key_with_a_control_character_is_refused_by_its_header(
    client: TestClient, key: str
) -> None:
    answer = client.post(
        "/v1/models", content=MODEL % '"m"', headers={**JSON, "Idempotency-Key": key}
    )
    assert answer.status_code == 422, answer.text
    assert [error["parameter"] for error in answer.json()["errors"]] == ["idempotency-key"]
