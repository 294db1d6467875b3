"""Pointers to values of a body."""

from app.core.pointers import pointers_to


def test_each_entry_at_fault_has_a_pointer_with_its_index() -> None:
    found = pointers_to(["a", "b", "c", "b"], {"b", "x"}, "#/versions", "unknown")
    assert found == [
        {"pointer": "#/versions/1", "detail": "unknown"},
        {"pointer": "#/versions/3", "detail": "unknown"},
    ]
