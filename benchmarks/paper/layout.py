"""The layout of ``results.json``: what tables and plots read from it must be there."""

import json
from pathlib import Path
from typing import Any, NoReturn, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from benchmarks.figures import BenchmarkError

FORMAT = 1
Json = dict[str, Any]
_NO_PATH = r"^[^/\\\x00-\x1f]{1,100}$"


def load(path: Path) -> Json:
    """Read a file that says that it is a ``results.json`` of this format.

    Raises:
        BenchmarkError: it cannot be read, or it says something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        _refuse(path, str(error.strerror))
    except (ValueError, RecursionError) as error:
        _refuse(path, f"it is no JSON: {error}")
    if not isinstance(content, dict):
        _refuse(path, f"a JSON object was expected, and a {type(content).__name__} came")
    given = content.get("format", "nothing")
    if given != FORMAT:
        _refuse(path, f'"format": {FORMAT} was expected, and {given!r} came')
    return content


def read(path: Path) -> Json:
    """Read a ``results.json`` that has all that tables and plots need.

    Raises:
        BenchmarkError: it has not.
    """
    content = load(path)
    try:
        _File.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        _refuse(path, f"{place or 'all of it'}: {first['msg']}")
    return content


def _refuse(path: Path, reason: str) -> NoReturn:
    raise BenchmarkError(
        f"a results.json that `lethe bench paper` wrote was expected, and {path} is none: {reason}; "
        "name another file"
    )


class _Strict(BaseModel):
    """What is not named may be there or not."""

    model_config = ConfigDict(strict=True)


class _Options(_Strict):
    amounts: list[str]
    seeds: int
    first_seed: int = 0
    settings: dict[str, Json] = Field(default_factory=dict)
    threads: int


class _Data(_Strict):
    title: str


class _Cell(_Strict):
    part: str
    preset: str = Field(pattern=_NO_PATH)  # these name plots
    family: str = Field(pattern=_NO_PATH)
    amount: str = Field(pattern=_NO_PATH)
    row: str = Field(pattern=_NO_PATH)
    seed: int
    run_id: str | None
    reason: str | None


class _Metric(_Strict):
    name: str
    moment: str
    subset: str
    value: float | None
    details: Json = Field(default_factory=dict)


class _Cost(_Strict):
    method_seconds: float
    trained_parameters: float
    peak_memory_bytes: float


class _Machine(_Strict):
    processor: str
    cores: str
    python: str


class _Provenance(_Strict):
    commit: str
    machine: _Machine


class _Environment(_Strict):
    platform: str
    device: str
    torch: str


class _Deleted(_Strict):
    pairs: int


class _Spec(_Strict):
    forget: dict[str, _Deleted]


class _Run(_Strict):
    status: str
    reason: str | None
    spec: _Spec
    provenance: _Provenance | None
    environment: _Environment | None
    cost: _Cost | None
    metrics: list[_Metric]


class _File(_Strict):
    commit: str
    options: _Options
    data: dict[str, _Data]
    cells: list[_Cell]
    runs: dict[str, _Run]

    @model_validator(mode="after")
    def _cells_have_data(self) -> Self:
        unknown = sorted({cell.preset for cell in self.cells} - set(self.data))
        if unknown:
            raise ValueError(f"cells are of {', '.join(unknown)}, and data names no such data set")
        return self
