"""``--set METHOD.NAME=VALUE``: parameters of methods in place of their defaults, for a whole call."""

import tomllib
from collections.abc import Sequence
from typing import Any

from benchmarks.figures import BenchmarkError
from benchmarks.paper.preset_file import misfit_params

Settings = dict[str, dict[str, Any]]
"""Parameters by method."""


def read_settings(given: Sequence[str]) -> Settings:
    """Return parameters by method; the last one of a name counts.

    Args:
        given: ``METHOD.NAME=VALUE`` each, the value as in TOML or a bare word.

    Raises:
        BenchmarkError: one has another form, no method or parameter has its name, or the value does not fit.
    """
    found: Settings = {}
    for text in given:
        name, equals, value = text.partition("=")
        method, dot, parameter = name.strip().partition(".")
        if not (method and dot and parameter and equals and value.strip()):
            raise BenchmarkError(f"--set takes METHOD.NAME=VALUE, and {text!r} came")
        found.setdefault(method, {})[parameter] = _value(value.strip())
    problems = list(misfit_params("--set ", found))
    if problems:
        raise BenchmarkError("; ".join(problems))
    return found


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
