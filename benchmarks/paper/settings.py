"""``--set METHOD.NAME=VALUE``: parameters of methods in place of their defaults, for a whole call."""

from collections.abc import Sequence
from typing import Any

from benchmarks.figures import BenchmarkError
from benchmarks.paper.preset_file import misfit_params
from engine.methods import methods

Settings = dict[str, dict[str, Any]]
"""Parameters by method."""
NULL = "null"
"""Takes the default in place of what a data set's own settings have."""


def read_settings(given: Sequence[str]) -> Settings:
    """Return parameters by method as the engine has them; the last one of a name counts.

    Args:
        given: ``METHOD.NAME=VALUE`` each.

    Raises:
        BenchmarkError: one has another form, no method or parameter has its name, or the value does not fit.
    """
    found: Settings = {}
    for text in given:
        name, equals, value = (part.strip() for part in text.partition("="))
        method, dot, parameter = name.partition(".")
        if not (method and dot and parameter and equals and value):
            raise BenchmarkError(f"--set takes METHOD.NAME=VALUE, and {text!r} came")
        found.setdefault(method, {})[parameter] = None if value == NULL else value
    problems = list(misfit_params("--set ", found))
    if problems:
        raise BenchmarkError("; ".join(problems))
    # 6 and 6.0 are one setting, and one run.
    return {
        method: methods.get(method).params.model_validate(own).model_dump(include=set(own))
        for method, own in found.items()
    }
