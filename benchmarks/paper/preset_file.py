"""Data sets of one's own for ``lethe bench paper``: a TOML file with a table for each.

The keys are those of `Preset` and `Setting`. What names a pretrained model may be the path of a folder
beside the file. Nothing is trained before all of it has been read and found to fit.
"""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from benchmarks.figures import BenchmarkError
from benchmarks.paper.plan import PRETRAINED
from benchmarks.paper.presets import Preset, Setting
from engine.families import families
from engine.methods import methods
from engine.tasks import tasks

_PRESETS = TypeAdapter(dict[str, Preset])


def read_presets(file: Path, known: Mapping[str, Preset]) -> dict[str, Preset]:
    """Return the data sets that ``file`` describes, by name.

    Args:
        file: TOML.
        known: data sets that have their names already, and that a training may start from.

    Raises:
        BenchmarkError: the file cannot be read, or the place in it that does not fit.
    """
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BenchmarkError(
            f"a TOML file of data sets was expected, and {file} is none: {reason}"
        ) from error
    try:
        found = _PRESETS.validate_python(_placed(content, file.absolute().parent))
    except ValidationError as error:
        raise BenchmarkError(f"{file}: {_told(error)}") from error
    problems = list(_problems(found, known))
    if problems:
        raise BenchmarkError(f"{file}: {'; '.join(problems)}")
    return found


def _placed(value: Any, folder: Path, key: str = "") -> Any:
    """Return the content with whole paths for folders of pretrained models beside the file."""
    if isinstance(value, dict):
        return {name: _placed(one, folder, name) for name, one in value.items()}
    if isinstance(value, str) and key.startswith(PRETRAINED) and (folder / value).is_dir():
        return str(folder / value)
    return value


def _problems(found: Mapping[str, Preset], known: Mapping[str, Preset]) -> Iterator[str]:
    """Yield what does not fit, with its place: names, then the values that the engine checks."""
    everything = {**known, **found}
    for name, preset in found.items():
        if name in known:
            yield f"{name}: there is a data set of this name; choose another one"
        if preset.task not in tasks:
            yield f"{name}.task: {preset.task} is unknown; known are {', '.join(tasks)}"
            continue
        for family, setting in preset.settings.items():
            place = f"{name}.settings.{family}"
            if family not in families:
                yield f"{place}: the family is unknown; known are {', '.join(families)}"
                continue
            reason = tasks.get(preset.task).refusal(families.get(family))
            if reason is not None:
                yield f"{place}: {reason}"
            yield from _started(place, family, setting, everything)
            yield from _misfits(
                f"{place}.config", families.get(family).config_class, setting.config
            )
            yield from _misfits(
                f"{place}.training", tasks.get(preset.task).recipe, setting.training
            )
            for method, params in setting.params.items():
                where = f"{place}.params.{method}"
                if method not in methods:
                    yield f"{where}: the method is unknown; known are {', '.join(methods)}"
                else:
                    yield from _misfits(where, methods.get(method).params, params)


def _started(
    place: str, family: str, setting: Setting, everything: Mapping[str, Preset]
) -> Iterator[str]:
    """Yield why a training cannot start from the original of another data set."""
    if setting.start is None:
        return
    if PRETRAINED in setting.config:
        yield f"{place}: it names both start and config.{PRETRAINED}; leave one out"
    other = everything.get(setting.start)
    first = None if other is None else other.settings.get(family)
    if first is None:
        yield f"{place}.start: {setting.start} is no data set with settings for {family}"
    elif first.start is not None:
        yield f"{place}.start: {setting.start} starts from {first.start} itself; name that one"


def _misfits(place: str, kind: type[BaseModel], given: Mapping[str, Any]) -> Iterator[str]:
    try:
        kind.model_validate(given)
    except ValidationError as error:
        yield f"{place}: {_told(error)}"


def _told(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}".removeprefix(": ")
        for problem in error.errors(include_url=False, include_input=False)
    )
