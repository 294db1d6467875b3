"""A setting in words: its variable, what it takes, and what is wrong with what came."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo

from app.core.settings_errors import SettingsError

_LONGEST = 80
_PREFIX = "LETHE_"
# Variables of ours that are no settings: of the compose file, of benchmarks, and of the tests.
_OTHERS = ("LETHE_DATASETS", "LETHE_CACHE_PAIRS")
_OTHERS_PREFIX = "LETHE_TEST_"
_KINDS = {int: "a whole number", float: "a number", bool: "true or false"}
_BOUNDS = (("ge", "of at least"), ("gt", "above"), ("le", "of at most"), ("lt", "below"))


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return f"{_PREFIX}{name.upper()}"


def unknown(environment: Iterable[str], fields: Mapping[str, FieldInfo]) -> dict[str, str]:
    """Return the names in an environment that look like settings and are none, each with a sentence."""
    known = [*map(variable, fields), *_OTHERS]
    return {
        name: _no_setting(name, known)
        for name in sorted(environment)
        if name.upper().startswith(_PREFIX)
        and not name.upper().startswith(_OTHERS_PREFIX)
        and name.upper() not in known  # their case does not count
    }


def _no_setting(name: str, known: list[str]) -> str:
    close = get_close_matches(name.upper(), known, n=1, cutoff=0.75)
    hint = f"Did you mean {close[0]}?" if close else "docs/settings.md lists them."
    return f"{name} is no setting of Lethe and has no effect. {hint}"


def plain_type(annotation: Any) -> Any:
    """Return the type of a setting without None and without what is checked beside it."""
    while get_origin(annotation) in (Annotated, Union, UnionType):
        annotation = next(kind for kind in get_args(annotation) if kind is not NoneType)
    return annotation


def explained(error: ValidationError, fields: dict[str, FieldInfo]) -> SettingsError:
    """Return the error with one line for each wrong variable; no secret is in them."""
    lines = []
    for found in error.errors(include_url=False):
        if found["type"] == "default_factory_not_called":
            continue  # a default that depends on what is wrong
        name = str(found["loc"][0])
        field = fields[name]
        said = found.get("ctx", {}).get("error")
        expected = str(said) if found["type"] == "value_error" else _expected(field)
        shown = _got(found["input"], secret=plain_type(field.annotation) is SecretStr)
        lines.append(f"{variable(name)}: expected {expected}; got {shown}.")
    return SettingsError("\n".join(lines))


def _expected(field: FieldInfo) -> str:
    """Return in words what a field takes, from its type and its bounds."""
    kind = plain_type(field.annotation)
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, get_args(kind)))
    rules = {
        name: getattr(rule, name)
        for rule in field.metadata
        for name in (*(bound for bound, _ in _BOUNDS), "pattern")
        if getattr(rule, name, None) is not None
    }
    if "pattern" in rules:
        return f"text of the form {rules['pattern'].strip('^$')}"
    bounds = [f"{words} {rules[name]}" for name, words in _BOUNDS if name in rules]
    return " ".join([_KINDS.get(kind, "text"), " and ".join(bounds)]).strip()


def _got(value: Any, *, secret: bool) -> str:
    if value in ("", None):
        return "nothing"
    if secret or "@" in str(value):
        return "a value that is not shown, as a password may be in it"
    shown = repr(value)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}..."
