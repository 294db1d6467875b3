from pathlib import Path

import pytest
from pydantic import BaseModel

from engine.data.lines import first_keys, read_lines, read_models
from engine.errors import DataError


class Inner(BaseModel):
    number: int


class Thing(BaseModel):
    name: str
    inner: Inner | None = None
    either: int | list[int] = 0


def test_blank_lines_are_left_out_and_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"name": "x"}\n\n  \n{"name": "y"}')
    found = list(read_models(tmp_path / "a.jsonl", Thing))
    assert [(number, thing.name) for number, thing in found] == [(1, "x"), (4, "y")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{}", "name: Field required"),
        ("{", "Invalid JSON: .*"),
        ("[]", "Input should be an object"),
        ('{"name": "x", "inner": {"number": "n"}}', "inner.number: Input should be a valid .*"),
        # The alternatives of a type are no part of the field's name.
        ('{"name": "x", "either": "n"}', "either: Input should be a valid .*"),
    ],
)
def test_a_broken_line_is_named_with_its_field(tmp_path: Path, line: str, reason: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"name": "x"}\n' + line)
    with pytest.raises(DataError, match=rf"^a\.jsonl, line 2: {reason}"):
        list(read_models(tmp_path / "a.jsonl", Thing))


class Strict(BaseModel, extra="forbid"):
    name: str = ""


def test_of_many_faults_the_first_are_named_and_the_others_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1, "b": 1, "c": 1, "d": 1, "e": 1, "f": 1, "g": 1}')
    with pytest.raises(DataError) as refused:
        list(read_models(tmp_path / "a.jsonl", Strict))
    assert str(refused.value).endswith(
        "e: Extra inputs are not permitted; and 2 more; known are name"
    )


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: the file cannot be read: No such file"):
        list(read_lines(tmp_path / "none.jsonl"))


@pytest.mark.parametrize(
    ("content", "keys"),
    [
        (b'{"a": 1, "b": 2}\n{"c": 3}\n', {"a", "b"}),
        (b"[1, 2]\n", None),
        (b"{\n", None),
        (b"\xff\n", None),
        (b"", None),
    ],
)
def test_the_keys_of_the_first_line_tell_what_a_file_is(
    tmp_path: Path, content: bytes, keys: set[str] | None
) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    assert first_keys(tmp_path / "a.jsonl") == keys
    assert first_keys(tmp_path / "none.jsonl") is None
