"""What a file of an uploaded checkpoint may be: names from a list, contents that are only data.

Weights are safetensors, which hold numbers and nothing that runs; no pickle is ever opened. Names
are plain, so that no file can lie outside of its checkpoint's folder.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from app.core.json_members import RepeatedMemberError, object_of
from app.registry.errors import CheckpointInvalid, FileRefused
from app.registry.pretrained import foreign

WEIGHTS = "model.safetensors"
SUMS = "SHA256SUMS"
CARD = "lethe.json"
JSON_FILES = (
    "config.json",
    CARD,
    "preprocessor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
TEXT_FILES = ("README.md", SUMS, "merges.txt", "vocab.txt")
ALLOWED = frozenset({WEIGHTS, *JSON_FILES, *TEXT_FILES})
REQUIRED = (WEIGHTS, "config.json", CARD)
# Files other than weights are read whole to check them.
_MOST_TEXT_BYTES = 64 << 20
_MOST_SHOWN = 100


def check_name(path: str) -> None:
    """Raise `FileRefused` unless a checkpoint may have a file of this name."""
    if path not in ALLOWED:
        raise FileRefused(
            f"A checkpoint cannot have a file {path[:_MOST_SHOWN]!r}. Allowed are "
            f"{', '.join(sorted(ALLOWED))}; no pickle is ever taken, nor a path with folders.",
            pointers=[{"parameter": "path", "detail": "not a name that a checkpoint may have"}],
        )


def check_content(path: str, file: Path, size: int) -> None:
    """Raise `FileRefused` unless ``file`` is what the name ``path`` says.

    Args:
        path: its name in the checkpoint, allowed by `check_name`.
        file: where it lies now.
        size: its size in bytes.
    """
    if path == WEIGHTS:
        _check_safetensors(file)
        return
    if size > _MOST_TEXT_BYTES:
        raise FileRefused(f"{path} may have at most {_MOST_TEXT_BYTES} bytes; {size} came.")
    try:
        text = file.read_text("utf-8")
        if path in JSON_FILES:
            _check_json(path, text)
    except (json.JSONDecodeError, RepeatedMemberError) as error:
        raise FileRefused(f"{path} is no JSON that can be taken: {error}. Correct it.") from None
    except (ValueError, RecursionError) as error:
        raise FileRefused(f"{path} is not valid: {type(error).__name__}. Send it again.") from None


def sums(digests: Mapping[str, str]) -> str:
    """Return the text of SHA256SUMS for files by path: sorted lines ``<sha256>  <path>``."""
    return "".join(f"{digests[path]}  {path}\n" for path in sorted(digests) if path != SUMS)


def checkpoint_sha256(digests: Mapping[str, str]) -> str:
    """Return the address of a checkpoint: the SHA-256 of its SHA256SUMS."""
    return hashlib.sha256(sums(digests).encode()).hexdigest()


def check_whole(digests: Mapping[str, str], expected: str | None) -> str:
    """Return the checkpoint's address.

    Args:
        digests: SHA-256 of each file by path, SHA256SUMS included if it was uploaded.
        expected: the address that the caller announced.

    Raises:
        CheckpointInvalid: a file is missing, SHA256SUMS says otherwise, or the address differs.
    """
    missing = [path for path in REQUIRED if path not in digests]
    if missing:
        raise CheckpointInvalid(
            f"The checkpoint lacks {', '.join(missing)}. Put it, then finalize."
        )
    address = checkpoint_sha256(digests)
    if digests.get(SUMS, address) != address:
        raise CheckpointInvalid(
            f"{SUMS} does not list the files that were put. Expected sorted lines '<sha256>  "
            "<path>' of every other file; put the right one. Left away, it is made."
        )
    if expected not in (None, address):
        raise CheckpointInvalid(
            f"The files give checkpoint_sha256 {address}; {expected} was expected. Compare "
            "GET .../files with what was sent and put the file that differs again.",
            pointers=[{"pointer": "#/checkpoint_sha256", "detail": f"it is {address}"}],
        )
    return address


def _check_json(path: str, text: str) -> None:
    members = json.loads(text, object_pairs_hook=object_of)
    if next(foreign(members), None) is not None:
        raise FileRefused(f"{path} names a pretrained encoder that is not installed here.")
    if not isinstance(members, dict):
        raise FileRefused(f"{path} must hold a JSON object.")


def _check_safetensors(file: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        # Opening reads the header alone and checks that the tensors fill the file exactly.
        with safe_open(file, framework="numpy") as weights:
            names = list(weights.keys())
    except SafetensorError as error:
        raise FileRefused(
            f"{WEIGHTS} is no whole safetensors file ({error}). Save it with safetensors and send "
            "it again; pickled weights are never accepted."
        ) from None
    if not names:
        raise FileRefused(f"{WEIGHTS} holds no tensor.")
