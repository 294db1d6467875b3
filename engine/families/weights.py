"""Weights and configuration of a family on disk: safetensors and JSON, nothing that runs code."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from engine.errors import CheckpointError
from engine.families.base import FamilyConfig

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
NAMED = 3
"""Most faults of a configuration that an error names."""

C = TypeVar("C", bound=FamilyConfig)


def save_config(config: FamilyConfig, directory: Path) -> None:
    """Write ``config.json`` with sorted keys, so that equal configurations are equal bytes."""
    text = json.dumps(config.model_dump(mode="json"), indent=2, sort_keys=True) + "\n"
    (directory / CONFIG).write_text(text, "utf-8")


def load_config(config_class: type[C], directory: Path) -> C:
    """Read ``config.json``; raises `CheckpointError` if missing, damaged or another's."""
    path = directory / CONFIG
    try:
        return config_class.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{CONFIG} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise misfit(CONFIG, config_class, error) from error


def misfit(file: str, config_class: type[FamilyConfig], error: ValidationError) -> CheckpointError:
    """Return what to raise when ``file`` does not fit a configuration; it names the first faults."""
    faults = error.errors(include_url=False, include_input=False)
    shown = "; ".join(
        f"{'.'.join(map(str, fault['loc'])) or 'all'}: {fault['msg']}" for fault in faults[:NAMED]
    )
    return CheckpointError(
        f"{file} is not a configuration of this family ({config_class.__name__}): "
        f"{len(faults)} faults, the first: {shown}"
    )


def save_weights(model: nn.Module, directory: Path) -> None:
    """Write every parameter and buffer of ``model`` to ``model.safetensors``, from the CPU.

    Raises:
        CheckpointError: one of them is not finite.
    """
    _require_finite(model)
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(state, directory / WEIGHTS, metadata={"format": "pt"})


def load_weights(model: nn.Module, directory: Path, may_lack: frozenset[str] = frozenset()) -> None:
    """Fill ``model`` from ``model.safetensors``.

    Args:
        model: what is filled.
        directory: where the file lies.
        may_lack: weights that stay as they are when the file does not have them.

    Raises:
        CheckpointError: the file is missing or damaged, its names or shapes are not the model's,
            or a number in it is not finite.
    """
    try:
        state = load_file(directory / WEIGHTS)
        present = model.state_dict()
        model.load_state_dict({name: present[name] for name in may_lack} | state, strict=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{WEIGHTS} does not fit the model of {CONFIG}: {error}") from error
    _require_finite(model)


def _require_finite(model: nn.Module) -> None:
    """Raise `CheckpointError` when a weight of ``model`` is NaN or infinite; it names the first."""
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CheckpointError(
                f"every number in {WEIGHTS} must be finite, and the tensor {name} has NaN or "
                "infinity in it: its training diverged; use a checkpoint from before that"
            )


@lru_cache(maxsize=32)
def _file_digest(path: str, _size: int, _modified: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file in hex; kept as long as size and time of change stay."""
    stat = path.stat()
    return _file_digest(str(path), stat.st_size, stat.st_mtime_ns)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the context, torch's random numbers start at ``seed``; later they go on."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def initialise(module: nn.Module) -> None:
    """Draw the weights of linear layers (Glorot and Bengio 2010) and embeddings; biases are zero.

    BERT draws every weight with deviation 0.02, which fits a width of 768. A narrow model learns
    several times faster with a deviation that grows as its width shrinks.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_normal_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=0.02)
