"""Which pretrained models a caller may name: those that are installed with a worker.

These are words for encoders that come with a worker, and the folders that an operator put into the
root of pretrained models. A path or a hub's name would make a worker open whatever a caller points
it to. Uploads may name the words alone: what they bring must load wherever it is taken.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.core.pointers import pointer_to

INSTALLED = ("auto", "minilm")
# A schema's list of those that a field of a configuration can start from.
_OF_FIELD = "x-installed"
_PREFIX, _DIGEST = "pretrained", "_sha256"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SHOWN = 20


def folders(root: Path) -> list[str]:
    """Return the names of the pretrained models that lie in ``root``, sorted; empty where it is not.

    A model is a folder of a plain name, not led out of ``root`` by a link, with ``config.json`` and
    weights as safetensors: pickled ones are never opened.
    """
    if not root.is_dir():
        return []
    return sorted(place.name for place in root.iterdir() if _is_model(place, root.resolve()))


def _is_model(place: Path, root: Path) -> bool:
    return (
        _NAME.fullmatch(place.name) is not None
        and place.name not in INSTALLED
        and place.resolve().is_relative_to(root)
        and (place / "config.json").is_file()
        and any(place.glob("*.safetensors"))
    )


def misplaced(
    schema: Mapping[str, Any],
    config: Mapping[str, Any],
    pointer: str,
    named: Sequence[str] = (),
) -> Iterator[dict[str, str]]:
    """Yield a pointer to each member of ``config`` that names an encoder of another kind.

    Args:
        schema: of a family's configuration; a field that it gives no `INSTALLED` one has none.
        config: follows it.
        pointer: where it stands.
        named: `folders` that may be named too.
    """
    for name, member in config.items():
        fitting = [*schema["properties"].get(name, {}).get(_OF_FIELD, ()), *named]
        if _names_encoder(name) and member is not None and member not in fitting:
            known = f"one of {_listed(fitting)}, or null" if fitting else "null"
            yield {
                "pointer": pointer_to([name], pointer),
                "detail": f"{known} expected: no other model that is installed fits here",
            }


def foreign(value: Any, pointer: str = "#") -> Iterator[dict[str, str]]:
    """Yield a pointer to each encoder in ``value`` that is not `INSTALLED`, at any depth."""
    if isinstance(value, list):
        for number, member in enumerate(value):
            yield from foreign(member, f"{pointer}/{number}")
    if not isinstance(value, dict):
        return
    for name, member in value.items():
        place = pointer_to([name], pointer)
        if _names_encoder(name) and member is not None and member not in INSTALLED:
            yield {"pointer": place, "detail": f"one of {', '.join(INSTALLED)} expected, or null"}
        else:
            yield from foreign(member, place)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


def _names_encoder(name: str) -> bool:
    return name.startswith(_PREFIX) and not name.endswith(_DIGEST)
