"""Checkpoints in the layout that transformers reads: its ``config.json``, with our part in it.

What transformers has no word for (classes, images of a pair, ...) stands below the key ``lethe``,
which transformers leaves alone. A folder without that key, saved by transformers itself, is read
with our defaults.
"""

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from transformers import PreTrainedConfig
from transformers.image_processing_backends import PilBackend

from engine.errors import CheckpointError, InvalidSpec
from engine.families import pretrained
from engine.families.base import FamilyConfig
from engine.families.weights import CONFIG, misfit

OURS = "lethe"
PROCESSOR = "preprocessor_config.json"
LayoutT = TypeVar("LayoutT", bound=PreTrainedConfig)
ConfigT = TypeVar("ConfigT", bound=FamilyConfig)


def save_layout(
    layout: PreTrainedConfig, architecture: str | None, ours: dict[str, Any], directory: Path
) -> None:
    """Write ``config.json`` with sorted keys, so that equal configurations are equal bytes.

    Args:
        layout: the configuration of transformers.
        architecture: class of transformers that the weights are for; None: it has none.
        ours: what stands in no field of ``layout``.
        directory: where it is written.
    """
    described = json.loads(layout.to_json_string(use_diff=False))
    described.pop("_name_or_path", None)  # a place on the machine that made it
    described |= {"architectures": [architecture] if architecture else None, OURS: ours}
    text = json.dumps(described, indent=2, sort_keys=True) + "\n"
    (directory / CONFIG).write_text(text, "utf-8")


def load_layout(kind: type[LayoutT], directory: Path) -> tuple[LayoutT, dict[str, Any]]:
    """Read ``config.json``: the configuration of transformers, and our part of it.

    Raises:
        CheckpointError: it is missing, damaged or of another kind.
    """
    try:
        layout = pretrained.read_config(kind, directory)
    except InvalidSpec as error:
        raise CheckpointError(f"{CONFIG} is no {kind.__name__}: {error}") from error
    ours = getattr(layout, OURS, {})
    if not isinstance(ours, dict):
        raise CheckpointError(f"{CONFIG} must have an object under {OURS!r}, and has {ours!r}")
    return layout, ours


def described(kind: type[ConfigT], fields: dict[str, Any]) -> ConfigT:
    """Return a family's configuration of ``fields``; raises `CheckpointError` when they misfit."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise misfit(CONFIG, kind, error) from error


def save_processor(processor: PilBackend, directory: Path) -> None:
    """Write how images become pixels, as the image processors of transformers read it."""
    (directory / PROCESSOR).write_text(processor.to_json_string(), "utf-8")
