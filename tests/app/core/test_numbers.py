"""Whole numbers of paths and queries: bounded everywhere, and refused in words."""

from typing import Annotated, Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import TypeAdapter, ValidationError

from app.core.numbers import LARGEST, Within

TOO_LARGE = 10**23


def numbers_of(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Return path, name and schema of every whole number that a path or a query takes."""
    return [
        (path, parameter["name"], schema)
        for path, item in document["paths"].items()
        for operation in item.values()
        for parameter in operation.get("parameters", [])
        for schema in (parameter["schema"], *parameter["schema"].get("anyOf", []))
        if schema.get("type") in ("integer", "number")
    ]


def test_every_number_of_a_path_or_query_has_bounds_that_the_database_holds(app: FastAPI) -> None:
    found = numbers_of(app.openapi())
    assert {"after", "limit", "start", "size", "leaf_index", "first", "second", "since"} == {
        name for _, name, _ in found
    }
    for path, name, schema in found:
        assert 0 <= schema["minimum"] <= schema["maximum"] <= LARGEST, (path, name)


@pytest.mark.parametrize(
    ("came", "said"),
    [
        (str(TOO_LARGE), str(TOO_LARGE)),
        (str(LARGEST + 1), str(LARGEST + 1)),
        ("-1", "-1"),
        ("1.5", "1.5"),
        ("9" * 5000, "a number of 5000 characters"),
        ("pair-17", "text"),
        ("", "nothing"),
    ],
)
def test_a_number_out_of_range_is_named_with_its_range_and_what_came(
    client: TestClient, came: str, said: str
) -> None:
    for path, name, schema in numbers_of(client.get("/openapi.json").json()):
        others = {"leaf_index": "0", "size": "1", "first": "0", "second": "1"}
        query = {key: value for key, value in others.items() if "/proof/" in path} | {name: came}
        answer = client.get(path.replace("{", "").replace("}", ""), params=query)
        assert answer.status_code == 422, (path, name, answer.text)
        errors = {error["parameter"]: error["detail"] for error in answer.json()["errors"]}
        low, high = schema["minimum"], schema["maximum"]
        assert errors[name] == f"expected a whole number from {low} to {high}; {said} came"


@pytest.mark.parametrize("number", [3, 7])
def test_both_bounds_are_taken_and_what_lies_beyond_them_is_not(number: int) -> None:
    within = TypeAdapter(Annotated[int, Within(3, 7)])
    assert within.validate_python(str(number)) == number
    for beyond in (2, 8):
        with pytest.raises(ValidationError, match="from 3 to 7"):
            within.validate_python(beyond)
