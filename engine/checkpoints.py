"""Checkpoints on disk: written whole or not at all, hashed file by file, never unpickled.

A checkpoint is a folder: weights (safetensors), ``config.json``, tokenizer files, the card
``lethe.json``, ``README.md`` for people, and ``SHA256SUMS``. The checkpoint's address is the
SHA-256 of ``SHA256SUMS``. Equal weights and card give equal bytes: no time, host or job stands in
any of the files.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError

from engine.errors import CheckpointError, StorageFull
from engine.families import PairModel, families
from engine.families.weights import WEIGHTS, misfit

CARD = "lethe.json"
README = "README.md"
SUMS = "SHA256SUMS"


@dataclass(frozen=True)
class CheckpointDigest:
    """Digests of a checkpoint, in hex.

    Attributes:
        checkpoint_sha256: of ``SHA256SUMS``, and so of every file.
        weights_sha256: of ``model.safetensors``.
        files: SHA-256 by path, without ``SHA256SUMS`` itself.
    """

    checkpoint_sha256: str
    weights_sha256: str
    files: dict[str, str]


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint whose digests held: its model in eval mode, its card and its digests."""

    model: PairModel
    card: dict[str, Any]
    digest: CheckpointDigest


def save_checkpoint(model: PairModel, directory: Path, card: dict[str, Any]) -> CheckpointDigest:
    """Write a checkpoint: into a temporary sibling, to the disk, then under its name at once.

    Args:
        model: whose weights, configuration and tokenizer are saved.
        directory: the new folder; it must not be there.
        card: JSON values that describe the model (task, training recipe, lineage). ``family`` and
            ``config`` are added. Nothing in it may change between equal runs.

    Raises:
        StorageFull: the disk is full; nothing of the checkpoint is left.
        CheckpointError: the folder is there, or cannot be written.
    """
    if directory.exists():
        raise CheckpointError(
            f"{directory} is there; a checkpoint is never changed, choose a new folder"
        )
    with _storage_errors(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
        try:
            digest = _fill(model, draft, card)
            draft.rename(directory)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        _sync_folder(directory.parent)
    return digest


def _fill(model: PairModel, draft: Path, card: dict[str, Any]) -> CheckpointDigest:
    full = {**card, "family": model.family, "config": model.config.model_dump(mode="json")}
    model.save(draft)
    (draft / CARD).write_text(json.dumps(full, indent=2, sort_keys=True) + "\n", "utf-8")
    (draft / README).write_text(_readme(full), "utf-8")
    files = {path: _sha256(draft / path) for path in _paths(draft)}
    (draft / SUMS).write_text(_sums(files), "utf-8")
    _share(draft)
    for path in (*files, SUMS):
        _sync_file(draft / path)
    _sync_folder(draft)
    return _digest(files)


def load_checkpoint(directory: Path) -> LoadedCheckpoint:
    """Read a checkpoint after checking every file against ``SHA256SUMS``.

    Raises:
        CheckpointError: a file is missing, changed, not listed or a link; or the model cannot be
            built.
    """
    digest = verify_checkpoint(directory)
    card = _card(directory)
    name = card.get("family")
    if not isinstance(name, str) or name not in families:
        raise CheckpointError(f"{CARD} names the family {name!r}; known are {', '.join(families)}")
    with _storage_errors(directory):
        model = families.get(name).load(directory)
    _check_config(model, card.get("config"))
    return LoadedCheckpoint(model.eval(), card, digest)


def _check_config(model: PairModel, described: object) -> None:
    """Refuse a card that describes another model; fields that came later have their defaults."""
    kind = type(model.config)
    try:
        found = kind.model_validate(described)
    except ValidationError as error:
        raise misfit(CARD, kind, error) from error
    if found != model.config:
        raise CheckpointError(f"the configuration in {CARD} is not the one in config.json")


def verify_checkpoint(directory: Path) -> CheckpointDigest:
    """Check every file of a checkpoint against ``SHA256SUMS`` and return the digests.

    Raises:
        CheckpointError: a file is missing, changed, not listed or a link.
    """
    with _storage_errors(directory):
        listed = _listed(directory)
        present = set(_paths(directory)) - {SUMS}
        if present != set(listed):
            odd = ", ".join(sorted(present ^ set(listed)))
            raise CheckpointError(f"{SUMS} and the files of {directory} do not agree on: {odd}")
        for path, expected in listed.items():
            found = _sha256(directory / path)
            if found != expected:
                raise CheckpointError(f"{path} has SHA-256 {found}, and {SUMS} says {expected}")
    return _digest(listed)


def _listed(directory: Path) -> dict[str, str]:
    """Return the digests of ``SHA256SUMS``; its paths must stay in the folder."""
    try:
        text = (directory / SUMS).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{directory} is no checkpoint: {SUMS} cannot be read: {error}"
        ) from error
    listed = {}
    for number, line in enumerate(text.splitlines(), 1):
        sha256, separator, path = line.partition("  ")
        parts = PurePosixPath(path)
        if not separator or not path or parts.is_absolute() or ".." in parts.parts:
            raise CheckpointError(
                f"{SUMS}, line {number}: 'hash  path' was expected, and {line!r} came"
            )
        listed[path] = sha256
    if _sums(listed) != text:
        raise CheckpointError(f"{SUMS} must have sorted lines 'hash  path', each path once")
    if WEIGHTS not in listed:
        raise CheckpointError(f"{SUMS} lists no {WEIGHTS}")
    return listed


def _card(directory: Path) -> dict[str, Any]:
    try:
        card = json.loads((directory / CARD).read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{CARD} cannot be read: {error}") from error
    if not isinstance(card, dict):
        raise CheckpointError(f"{CARD} must be a JSON object, and is {type(card).__name__}")
    return card


def _paths(directory: Path) -> list[str]:
    """Return the files below ``directory`` as sorted POSIX paths; raises on links and oddities."""
    found = []
    for path in directory.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise CheckpointError(
                f"{path.name} is a link or no plain file; a checkpoint has files only"
            )
        if path.is_file():
            found.append(path.relative_to(directory).as_posix())
    return sorted(found)


def _sums(files: dict[str, str]) -> str:
    return "".join(f"{files[path]}  {path}\n" for path in sorted(files))


def _digest(files: dict[str, str]) -> CheckpointDigest:
    whole = hashlib.sha256(_sums(files).encode()).hexdigest()
    return CheckpointDigest(whole, files[WEIGHTS], dict(sorted(files.items())))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _share(draft: Path) -> None:
    """Give every file the mode that the umask gave the card: some writers make theirs private."""
    mode = (draft / CARD).stat().st_mode & 0o777
    for path in _paths(draft):
        (draft / path).chmod(mode)
    draft.chmod(mode | (mode & 0o444) >> 2)


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _storage_errors(directory: Path) -> Iterator[None]:
    """Turn errors of the disk into `CheckpointError`, and a full disk into `StorageFull`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        # safetensors writes from Rust, and tells the number in words only.
        full = getattr(error, "errno", None) == errno.ENOSPC or f"os error {errno.ENOSPC}" in str(
            error
        )
        kind = StorageFull if full else CheckpointError
        advice = "; free space and try again" if full else ""
        raise kind(f"{directory} cannot be written or read: {error}{advice}") from error


def _readme(card: dict[str, Any]) -> str:
    """Return a model card for people, with front matter that model hubs read."""
    described = json.dumps(
        {k: v for k, v in card.items() if k != "config"}, indent=2, sort_keys=True
    )
    return f"""---
library_name: lethe
pipeline_tag: {card.get("task", "feature-extraction")}
---

# {card["family"]} for {card.get("task", "pairs")}

Load it with `engine.load_checkpoint(folder)`, which checks every file against `{SUMS}`.
Weights are in `{WEIGHTS}`, sizes in `config.json`, and how it was made in `{CARD}`:

```json
{described}
```
"""
