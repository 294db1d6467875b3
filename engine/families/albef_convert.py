"""The published weights of ALBEF, as its authors saved them, to a checkpoint of this engine.

``python -m engine.families.albef_convert ALBEF.pth OUT --tokenizer bert-base-uncased`` reads a state
dict of pretraining or of retrieval and writes a checkpoint that can be unlearned from, or named as
``pretrained`` by another training. Every weight must find its place: one that is left over or
missing is an error. Momentum copies (``*_m``), queues and the masked-language head (``cls``) are
left out by name, since unlearning does not use them.
"""

import argparse
import json
import pickle
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from engine.errors import CheckpointError, EngineError
from engine.families import pretrained
from engine.families.albef import Albef
from engine.families.albef_layers import AlbefConfig
from engine.tokenizers import TextTokenizer

LEFT_OUT = re.compile(r"^\w+_m\.|queue|^text_encoder\.(bert\.)?cls\.|\.position_ids$")
NAMED = 8
"""Most weights that an error names."""
HEAD_WIDTH = 64
"""Dimensions of an attention head in every published ViT and BERT, which no weight tells."""

_VISION = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
}
_BLOCK = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.o_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_ENDS = {
    "vision_proj": "item_projection",
    "text_proj": "text_projection",
    "itm_head": "head",
    "temp": "raw_temperature",
}
"""Names of the authors (the image encoder's are timm's), and ours."""


def convert(
    state: Mapping[str, Tensor],
    tokenizer: TextTokenizer,
    *,
    heads: int | None = None,
    dropout: float = 0.1,
) -> Albef:
    """Return an ALBEF with the weights of a published state dict.

    Args:
        state: weights by the authors' names.
        tokenizer: of the BERT that it was trained with, ``bert-base-uncased``.
        heads: attention heads; None for one each `HEAD_WIDTH` dimensions.
        dropout: in later training.

    Raises:
        CheckpointError: weights are missing, left over or of sizes that do not fit each other.
    """
    kept = {
        name.replace("text_encoder.bert.", "text_encoder."): weight
        for name, weight in state.items()
        if LEFT_OUT.search(name) is None
    }
    config = _sizes(kept, heads, dropout)
    tokenizer.check_fits(config.vocabulary)
    model = Albef(config, tokenizer)
    found = list(_renamed(kept, config.text_layers // 2))
    expected = model.state_dict().keys()
    _refuse("are not known", {name for name, place, _ in found if place not in expected})
    _refuse("are missing (by our names)", expected - {place for _, place, _ in found})
    try:
        model.load_state_dict({place: weight for _, place, weight in found})
    except RuntimeError as error:
        raise CheckpointError(f"weights of ALBEF do not fit each other: {error}") from error
    return model


def _refuse(what: str, names: "set[str]") -> None:
    if names:
        shown = ", ".join(sorted(names)[:NAMED])
        raise CheckpointError(
            f"{len(names)} weights {what} in a state dict of ALBEF, the first: {shown}"
        )


_MEASURED = {
    "patches": "visual_encoder.patch_embed.proj.weight",
    "places": "visual_encoder.pos_embed",
    "vision_ffn": "visual_encoder.blocks.0.mlp.fc1.weight",
    "words": "text_encoder.embeddings.word_embeddings.weight",
    "positions": "text_encoder.embeddings.position_embeddings.weight",
    "projection": "vision_proj.weight",
    "head": "itm_head.weight",
}
"""Weights whose shapes tell the sizes of the model."""


def _sizes(state: Mapping[str, Tensor], heads: int | None, dropout: float) -> AlbefConfig:
    _refuse("are missing", {name for name in _MEASURED.values() if name not in state})
    shapes = {short: state[name].shape for short, name in _MEASURED.items()}
    d, _, patch, _ = shapes["patches"]
    side = round((shapes["places"][1] - 1) ** 0.5) * patch
    layers, fusing = _counts(state)
    if fusing * 2 != layers or shapes["words"][1] != d:
        raise CheckpointError(
            f"an ALBEF has one width and fuses in half of its text layers; here {fusing} of "
            f"{layers} fuse, images are {d} wide and words {shapes['words'][1]}"
        )
    return AlbefConfig(
        image_size=(side, side),
        patch_size=(patch, patch),
        hidden_size=d,
        heads=heads or max(1, d // HEAD_WIDTH),
        vision_layers=len(
            {n.split(".")[2] for n in state if n.startswith("visual_encoder.blocks.")}
        ),
        text_layers=layers,
        feed_forward=shapes["vision_ffn"][0] // d,
        projection_size=shapes["projection"][0],
        dropout=dropout,
        vocabulary=shapes["words"][0],
        max_text_tokens=shapes["positions"][0],
        classes=shapes["head"][0],
        images=1,
        vision_norm_eps=1e-6,
    )


def _counts(state: Mapping[str, Tensor]) -> tuple[int, int]:
    """Return how many text layers there are, and how many of them have cross-attention."""
    prefix = "text_encoder.encoder.layer."
    layers = {name.split(".")[3] for name in state if name.startswith(prefix)}
    fusing = {name.split(".")[3] for name in state if name.startswith(prefix) and "cross" in name}
    return len(layers), len(fusing)


def _renamed(state: Mapping[str, Tensor], half: int) -> Iterator[tuple[str, str, Tensor]]:
    """Yield each weight after its name and ours; an unknown name is left as it is."""
    for name, weight in state.items():
        tower, _, rest = name.partition(".")
        if tower == "visual_encoder":
            for place, part in _vision(rest, weight):
                yield name, f"vision.{place}", part
        elif tower == "text_encoder":
            yield name, _text(rest, half), weight
        else:
            yield name, name.replace(tower, _ENDS.get(tower, tower), 1), weight


def _vision(name: str, weight: Tensor) -> Iterator[tuple[str, Tensor]]:
    block = re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", name)
    if block is None:
        known = next((timm for timm in _VISION if name == timm or name.startswith(f"{timm}.")), "")
        yield name.replace(known, _VISION.get(known, ""), 1), weight
        return
    number, part, kind = block.groups()
    if part == "attn.qkv":  # one matrix for the three, one above the other
        for letter, third in zip("qkv", weight.chunk(3), strict=True):
            yield f"layers.{number}.attention.{letter}_proj.{kind}", third
    else:
        yield f"layers.{number}.{_BLOCK.get(part, part)}.{kind}", weight


def _text(name: str, half: int) -> str:
    layer = re.fullmatch(r"encoder\.layer\.(\d+)\.(.+)", name)
    if layer is None:
        return name
    number, part = int(layer[1]), layer[2]
    if number < half:
        return f"text_layers.{number}.{part}"
    return f"fusion_layers.{number - half}.{part}"


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict that torch saved, without running what is in it.

    Raises:
        CheckpointError: it cannot be read, or holds something else than weights by name.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path} is no file of plain weights: {reason}") from error
    state = content.get("model", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(isinstance(w, Tensor) for w in state.values()):
        raise CheckpointError(f"{path} holds no weights by name, neither at its top nor as 'model'")
    return state


def main(arguments: list[str] | None = None) -> int:
    """Convert what the command line says and return the exit status."""
    from engine.checkpoints import save_checkpoint

    parser = argparse.ArgumentParser(prog="python -m engine.families.albef_convert")
    parser.add_argument("state", type=Path, help="state dict of the authors, a .pth file")
    parser.add_argument("out", type=Path, help="new folder for the checkpoint")
    parser.add_argument("--tokenizer", required=True, help="folder or hub name of its BERT")
    parser.add_argument("--heads", type=int, help="attention heads; default: width / 64")
    given = parser.parse_args(arguments)
    try:
        tokenizer = TextTokenizer.load(pretrained.resolve(given.tokenizer))
        model = convert(read_state(given.state), tokenizer, heads=given.heads)
        digest = save_checkpoint(model, given.out, {"task": "retrieval"})
    except EngineError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps({"checkpoint_sha256": digest.checkpoint_sha256}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
