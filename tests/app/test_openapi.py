"""The OpenAPI document is complete, and the service does what it says."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import booleans
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.datasets.readers import MEDIA_TYPES

EXAMPLES = 20
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


# Whoever checks a certificate needs the key and may be anybody.
PUBLIC = {"/v1/ledger/public-key"}


@schemathesis.serializer(*MEDIA_TYPES)
def raw(_: Any, value: Any) -> bytes:
    """Send a manifest as the generator made it: any bytes at all."""
    return value if isinstance(value, bytes) else str(value).encode()


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
    ]


def test_every_operation_is_described_secured_and_lists_its_errors(app: FastAPI) -> None:
    for method, path, operation in operations(app.openapi()):
        assert operation["description"], (method, path)
        responses = operation["responses"]
        assert {"500", "503"} <= set(responses)
        if path.startswith("/v1/") and path not in PUBLIC:
            assert operation["security"], (method, path)
            assert {"401", "403"} <= set(responses), (method, path)
        if "{" in path:
            assert {"404", "422"} <= set(responses), (method, path)
        if method == "post":
            names = {parameter["name"] for parameter in operation["parameters"]}
            assert "idempotency-key" in names, path
            assert {"409", "422"} <= set(responses), path


def test_every_error_of_every_operation_is_a_problem(app: FastAPI) -> None:
    document = app.openapi()
    assert "HTTPValidationError" not in document["components"]["schemas"]
    for method, path, operation in operations(document):
        for status, response in operation["responses"].items():
            if status.startswith(("4", "5")) and path != "/readyz":
                content = response["content"]["application/problem+json"]
                assert content["schema"] == {"$ref": "#/components/schemas/Problem"}, (method, path)


def test_every_body_has_an_example(app: FastAPI) -> None:
    document = app.openapi()
    for _, path, operation in operations(document):
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if content is None or path.endswith("/finalize"):
            continue
        reference = content["schema"]
        options = [reference, *reference.get("oneOf", [])]
        names = [option["$ref"].split("/")[-1] for option in options if "$ref" in option]
        for name in names:
            body = document["components"]["schemas"][name]
            assert body.get("examples"), (path, name)


def test_ids_of_operations_are_unique(app: FastAPI) -> None:
    found = [operation["operationId"] for _, _, operation in operations(app.openapi())]
    assert len(found) == len(set(found))


def test_service_answers_as_documented_whatever_is_sent(
    app: FastAPI,
    client: TestClient,
    make_token: Callable[..., str],
    make_dataset: Callable[..., dict[str, Any]],
    upload: Callable[..., dict[str, Any]],
) -> None:
    known = {"dataset_id": make_dataset()["dataset_id"]}
    version = upload(dataset_id=known["dataset_id"])
    known |= {name: version[name] for name in ("model_id", "version_id")}
    statuses: Counter[int] = Counter()
    headers = {"Authorization": f"Bearer {make_token('admin')}"}
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    found = [operation.ok() for operation in schema.get_all_operations()]
    assert len(found) > 30
    for operation in found:

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(), real=booleans())
        def answers_as_documented(case: Any, real: bool) -> None:
            if real:  # made-up ids would only ever see 404
                case.path_parameters |= {
                    k: v for k, v in known.items() if k in case.path_parameters
                }
            response = case.call(headers=headers)
            case.validate_response(response, checks=CHECKS)
            statuses[response.status_code] += 1

        answers_as_documented()
    assert {200, 404, 422} <= set(statuses), statuses
