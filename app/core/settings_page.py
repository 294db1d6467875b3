"""Writes docs/settings.md from `Settings`: ``python -m app.core.settings_page`` prints it."""

from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from app.core.settings import Settings
from app.core.settings_words import plain_type, variable

_HEAD = """# Settings

Every setting of API, worker and command line is an environment variable. This page is made from
the code by `make docs`; a test fails where they differ. `lethe serve` takes some of them as options
too (`lethe serve --help`). Sizes are bytes, times are seconds.

| variable | value | default | what it does |
|---|---|---|---|
"""
_WORDS = {"SecretStr": "text, secret", "Path": "path", "str": "text", "int": "whole number"}


def settings_page() -> str:
    """Return the page as Markdown."""
    rows = [_row(variable(name), field) for name, field in Settings.model_fields.items()]
    return _HEAD + "".join(rows)


def _row(name: str, field: FieldInfo) -> str:
    cells = f"`{name}`", _kind(field.annotation), _default(field), field.description or ""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def _kind(annotation: Any) -> str:
    """Return the kind of value in words."""
    kind = plain_type(annotation)
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    if get_origin(kind) is list:
        return "JSON list"
    name = str(getattr(kind, "__name__", kind))
    return _WORDS.get(name, {"float": "number", "bool": "`true` or `false`"}.get(name, name))


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None:
        return "not set"
    if isinstance(value, Path):
        return f"`{value.as_posix()}`"
    return f"`{value}`"


if __name__ == "__main__":
    print(settings_page(), end="")  # noqa: T201 - its output is the page
