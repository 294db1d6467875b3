"""What breaks a schema is told with the bound and what came, nullable or not."""

from typing import Any

import pytest

from app.registry.catalogue import catalogue
from app.registry.errors import ParametersInvalid
from app.registry.schema_faults import schema_faults


@pytest.mark.parametrize(
    ("params", "place", "words"),
    [
        ({"alpha": 2000}, "alpha", "2000 is greater than the maximum of 1000"),
        ({"alpha": -1}, "alpha", "-1 is less than the minimum of 0"),
        ({"alpha": "x"}, "alpha", 'expected a number or null; "x" came'),
        ({"alpha": True}, "alpha", "expected a number or null; true came"),
        ({"epochs": 1.5}, "epochs", "expected a whole number or null; 1.5 came"),
        ({"epochs": False}, "epochs", "expected a whole number or null; false came"),
        ({"learning_rate": 0}, "learning_rate", "expected more than 0; 0 came"),
        ({"batch_size": True}, "batch_size", "expected a whole number; true came"),
        ({"unrelated": "q"}, "unrelated", 'expected one of "dataset", "anchored"; "q" came'),
    ],
)
def test_fault_of_a_parameter_names_the_bound_and_what_came(
    params: dict[str, Any], place: str, words: str
) -> None:
    with pytest.raises(ParametersInvalid) as refused:
        catalogue().check_params("multidelete", params)
    assert refused.value.pointers == [{"pointer": f"#/params/{place}", "detail": words}]
    assert f"#/params/{place}: {words}." in refused.value.detail


def test_unknown_member_is_named_itself_with_those_that_are_known() -> None:
    schema = {"additionalProperties": False, "properties": {"a": {}, "b": {}}}
    (fault,) = schema_faults(schema, {"a": 1, "c": 2})
    assert fault.path == ("c",)
    assert fault.message == "unknown; known are a, b"


def test_bound_is_named_beside_a_value_of_any_length() -> None:
    schema = {"properties": {"n": {"maximum": 7}}}
    (fault,) = schema_faults(schema, {"n": 10**300})
    assert fault.message == f"1{'0' * 59}... is greater than the maximum of 7"


def test_one_place_has_one_fault_and_lists_point_to_their_elements() -> None:
    number = {"type": "integer", "enum": [1, 2]}
    schema = {
        "properties": {
            "l": {"prefixItems": [number, number], "minItems": 2},
            "s": {"minItems": 2},
            "n": {"anyOf": [number, {"type": "null"}]},
        }
    }
    found = schema_faults(schema, {"l": [1, 3], "s": [4], "n": "x"})
    assert {fault.path: fault.message for fault in found} == {
        ("l", 1): "expected one of 1, 2; 3 came",
        ("s",): "expected at least 2 elements; [4] came",
        ("n",): 'expected a whole number or null; "x" came',
    }
    assert schema_faults(schema, {"l": [1, 2], "n": None}) == []
