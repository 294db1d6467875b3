"""Data sets of one's own for ``lethe bench paper``: TOML files with a table for each.

The keys are those of `Preset` and `Setting`. Nothing is trained before all of it has been read and
found to fit.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from benchmarks.figures import BenchmarkError
from benchmarks.paper.plan import PRETRAINED, Options
from benchmarks.paper.presets import Preset, Setting, Values
from engine.errors import InvalidSpec
from engine.families import families, pretrained
from engine.methods import methods
from engine.tasks import tasks

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""Of a data set: it names folders and files."""
MOST_CHARACTERS = 200
"""Of a title, and of a path."""
_PRESETS = TypeAdapter(dict[str, Preset])


def read_presets(files: Sequence[Path], known: Mapping[str, Preset]) -> dict[str, Preset]:
    """Return the data sets that files describe, by name.

    Args:
        files: TOML; a training of one may start from a data set of another.
        known: data sets that have their names already, and that a training may start from.

    Raises:
        BenchmarkError: a file cannot be read, or the places in it that do not fit.
    """
    found: dict[str, Preset] = {}
    for file in files:
        own = _read(file)
        twice = [name for name in own if name in found or name in known]
        if twice:
            raise BenchmarkError(f"{file}: there is another data set called {twice[0]}; rename it")
        found |= own
    problems = list(_problems(found, known))
    if problems:
        raise BenchmarkError(f"{', '.join(map(str, files))}: {'; '.join(problems)}")
    return found


def with_models(options: Options) -> Options:
    """Return the options with folders in place of the names of pretrained models.

    A model of a hub is fetched now: a run is found by what is in the folder.

    Raises:
        BenchmarkError: one is not there.
    """
    used = {family for name in options.presets for family in options.chosen(name)}
    known = dict(options.known)
    for name in options.sources():
        settings = dict(known[name].settings)
        for family in used & set(settings):
            place = f"{name}.settings.{family}.config"
            config = _resolved(settings[family].config, place)
            settings[family] = replace(settings[family], config=config)
        known[name] = replace(known[name], settings=settings)
    return replace(options, known=known)


def _resolved(config: Values, place: str) -> Values:
    return {
        key: _folder_of(value, f"{place}.{key}") if _names_model(key, value) else value
        for key, value in config.items()
    }


def _names_model(key: str, value: Any) -> bool:
    return key.startswith(PRETRAINED) and isinstance(value, str) and value != pretrained.MINILM


def _folder_of(name: str, place: str) -> str:
    try:
        folder = pretrained.resolve(name).absolute()
    except InvalidSpec as error:
        raise BenchmarkError(f"{place}: {error}") from error
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise BenchmarkError(
            f"{place}: a folder with config.json and safetensors weights was expected, and {name} "
            "has them not"
        )
    return str(folder)


def _read(file: Path) -> dict[str, Preset]:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8-sig"))
        beside = _beside(content, file.absolute().parent)
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BenchmarkError(
            f"a TOML file of data sets was expected, and {file} is none: {reason}"
        ) from error
    try:
        return _PRESETS.validate_python(beside)
    except ValidationError as error:
        raise BenchmarkError(f"{file}: {_told(error)}{_keys(error)}") from error


def _beside(value: Any, folder: Path, key: str = "") -> Any:
    """Return the content with whole paths for folders of pretrained models beside the file."""
    if isinstance(value, dict):
        return {name: _beside(one, folder, name) for name, one in value.items()}
    # A word that is empty would be the folder of the file itself.
    if value and _names_model(key, value) and (folder / value).is_dir():
        return str(folder / value)
    return value


def _problems(found: Mapping[str, Preset], known: Mapping[str, Preset]) -> Iterator[str]:
    """Yield what does not fit, with its place: names, then the values that the engine checks."""
    everything = {**known, **found}
    titles = [preset.title for preset in everything.values()]
    for name, preset in found.items():
        yield from _misnamed(name, preset, titles)
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
            yield from _started(name, family, everything)
            yield from _unfit(place, families.get(family).config_class, preset.task, setting)


def _misnamed(name: str, preset: Preset, titles: Sequence[str]) -> Iterator[str]:
    """Yield what cannot be the name of a folder, a heading, or a path below the data."""
    if not NAME.fullmatch(name) or name in tasks:
        yield (
            f"{name!r}: the name of a data set has at most 64 letters, digits, - and _, begins with a "
            "letter or digit, and is no task's"
        )
    title, path = preset.title, preset.path or ""
    if not 0 < len(title) <= MOST_CHARACTERS or not title.isprintable() or "|" in title:
        yield f"{name}.title: one line without | was expected, of at most {MOST_CHARACTERS} characters"
    elif titles.count(title) > 1:
        yield f"{name}.title: another data set has this title, too; tables could not tell them apart"
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or not path.isprintable():
        yield f"{name}.path: a path below the folder of --data was expected, and {path!r} came"
    elif len(path) > MOST_CHARACTERS:
        yield f"{name}.path: at most {MOST_CHARACTERS} characters were expected"


def _started(name: str, family: str, everything: Mapping[str, Preset]) -> Iterator[str]:
    """Yield why a training cannot start where it is told to."""
    setting = everything[name].settings[family]
    place = f"{name}.settings.{family}"
    models = [key for key in setting.config if key.startswith(PRETRAINED)]
    if "" in (setting.config[key] for key in models):
        yield f"{place}.config: the name of a pretrained model is empty"
    if setting.start is None:
        return
    if models:
        yield f"{place}: it names both start and config.{models[0]}; leave one out"
    other = everything.get(setting.start)
    first = None if other is None else other.settings.get(family)
    if first is None:
        yield f"{place}.start: {setting.start} is no data set with settings for {family}"
    elif first.start is not None:
        yield (
            f"{place}.start: {setting.start} starts from {first.start}, and what is started from must not "
            "start from another data set"
        )


def _unfit(place: str, config: type[BaseModel], task: str, setting: Setting) -> Iterator[str]:
    """Yield what the engine would refuse of a setting."""
    yield from _misfits(f"{place}.config", config, setting.config)
    yield from _misfits(f"{place}.training", tasks.get(task).recipe, setting.training)
    yield from misfit_params(f"{place}.params.", setting.params)


def misfit_params(place: str, given: Mapping[str, Values]) -> Iterator[str]:
    """Yield what the engine would refuse of parameters by method, each after ``place``."""
    for method, params in given.items():
        where = f"{place}{method}"
        if method not in methods:
            yield f"{where}: the method is unknown; known are {', '.join(methods)}"
        else:
            yield from _misfits(where, methods.get(method).params, params)


def _misfits(place: str, kind: type[BaseModel], given: Values) -> Iterator[str]:
    try:
        kind.model_validate(given)
    except ValidationError as error:
        unknown = any(problem["type"] == "extra_forbidden" for problem in error.errors())
        known = f"; known are {', '.join(kind.model_fields)}" if unknown else ""
        yield f"{place}: {_told(error)}{known}"


def _keys(error: ValidationError) -> str:
    """Return the keys that there are, where one came that is none."""
    if not any(problem["type"] == "unexpected_keyword_argument" for problem in error.errors()):
        return ""
    keys = [", ".join(field.name for field in fields(kind)) for kind in (Preset, Setting)]
    return f"; known are {keys[0]}, and in settings.FAMILY {keys[1]}"


def _told(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}".removeprefix(": ")
        for problem in error.errors(include_url=False, include_input=False)
    )
