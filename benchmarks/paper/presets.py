"""What is trained on each data set, and the reason for each number.

A number that is not here is the engine's default. Sizes fit two processor cores: an original takes
minutes, as on the machine that the figures in docs/benchmarks.md were measured on. Data sets of
one's own come from a file (`benchmarks.paper.preset_file`).
"""

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Values = Mapping[str, Any]
_CLOSED = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=_CLOSED)
class Setting:
    """How one family is trained on a data set.

    Attributes:
        config: of the family.
        training: recipe of the task.
        params: of methods, by method, where this data set needs others than the defaults.
        start: the preset whose original (of the same family, seed 0) a training starts from,
            or None: it starts from nothing, or from what ``config`` names.
    """

    config: Values = field(default_factory=dict)
    training: Values = field(default_factory=dict)
    params: Mapping[str, Values] = field(default_factory=dict)
    start: str | None = None


@dataclass(frozen=True, config=_CLOSED)
class Preset:
    """One data set with its task: a column of the paper's tables.

    Attributes:
        title: heading of the column.
        task: what is trained.
        path: of the data set, below the folder with all of them; None: handwritten digits, which
            need no files.
        settings: by family; the first one is the default.
        whole_items: what a person asks to be forgotten: whole images with all their texts, or single
            pairs. In both cases they are drawn at random from the training split.
    """

    title: str
    task: str
    path: str | None
    settings: Annotated[Mapping[str, Setting], Field(min_length=1)]
    whole_items: bool = False


# Originals are what their training ends with. The best of many epochs on some hundred validation pairs
# is partly luck on these, which any method would seem to lose; on PGR it is also often an early one,
# which knows its training pairs little better than others.
_LAST: Values = {"keep": "last"}

# 72 pixels is the size of the drawings. Patches of 36 give four tokens, and captions have 3.4 words on
# average: large patches and few layers learn more from 4,835 drawings than small ones and many, and
# in less time. 32 tokens cut no caption short; 4,687 distinct words, many of them one another's
# parts, fit in 4,000 subwords.
_EMOJI_ALBEF: Values = {
    "image_size": [72, 72],
    "patch_size": [36, 36],
    "hidden_size": 128,
    "vision_layers": 2,
    "text_layers": 2,
    "feed_forward": 2,
    "projection_size": 128,
    "vocabulary": 4000,
    "max_text_tokens": 32,
}
# The same sizes for two towers, as `lethe demo` trains them.
_EMOJI_TOWERS: Values = {
    "image_size": 72,
    "patch_size": 36,
    "vision_size": 128,
    "vision_layers": 2,
    "vision_feed_forward": 256,
    "text_size": 128,
    "text_layers": 1,
    "text_feed_forward": 256,
    "projection_size": 128,
    "vocabulary": 4000,
    "max_text_tokens": 32,
}
# As `lethe demo` trains: batches of 128 give each pair as many negatives, and a rate of 1e-3 suits
# a model that starts from nothing.
_EMOJI_TRAINING: Values = {"epochs": 40, "batch_size": 128, "learning_rate": 1e-3, **_LAST}


def _reasoning(epochs: int) -> Setting:
    """Return a training with labels, which alone are too few to learn to see from.

    The paper's models start from pretrained ones, these from the retrieval original, with half of
    its rate, so that the warm-up forgets little of it, and for 1,100 to 1,250 steps.
    """
    training = {"epochs": epochs, "batch_size": 128, "learning_rate": 5e-4, **_LAST}
    return Setting(training=training, start="emoji_retrieval")


_ENTAILMENT = _reasoning(epochs=6)  # of 26,588 pairs
_IMAGE_PAIRS = _reasoning(epochs=12)  # of 11,806 pairs

PRESETS: Mapping[str, Preset] = {
    "emoji_retrieval": Preset(
        title="Emoji retrieval",
        task="retrieval",
        path="emoji_retrieval",
        whole_items=True,  # as when a person asks for their photographs to be forgotten
        settings={
            "albef": Setting(_EMOJI_ALBEF, _EMOJI_TRAINING),
            "blip": Setting(_EMOJI_TOWERS, _EMOJI_TRAINING),
            "clip": Setting(_EMOJI_TOWERS, _EMOJI_TRAINING),
        },
    ),
    "emoji_entailment": Preset(
        title="Emoji entailment",
        task="visual_entailment",
        path="emoji_reasoning/entailment.jsonl",
        whole_items=True,
        settings={"albef": _ENTAILMENT, "blip": _ENTAILMENT},
    ),
    "emoji_pairs": Preset(
        title="Emoji image pairs",
        task="nlvr",
        path="emoji_reasoning/image_pairs.jsonl",
        settings={"albef": _IMAGE_PAIRS, "blip": _IMAGE_PAIRS},
    ),
    "pgr": Preset(
        title="PGR",
        task="graph_text",
        path="pgr",
        # The defaults were made for PGR: text and nodes are read by the frozen MiniLM where it is
        # installed, since 2,573 sentences are too few to learn to read from.
        settings={"gcn_bert": Setting({"pretrained": "minilm"}, _LAST)},
    ),
    "digits": Preset(
        title="Handwritten digits",
        task="retrieval",
        path=None,
        settings={
            "albef": Setting(
                # One patch for each of four digits, a vocabulary of ten words: a quick look.
                config={
                    "image_size": [16, 64],
                    "patch_size": [16, 16],
                    "hidden_size": 64,
                    "vision_layers": 3,
                    "text_layers": 4,
                    "feed_forward": 2,
                    "projection_size": 64,
                    "vocabulary": 300,
                    "max_text_tokens": 16,
                },
                training={"epochs": 60, "batch_size": 64, "learning_rate": 2e-3},
            ),
        },
    ),
}

WITHOUT_DATA = "digits"
"""The preset that needs no folder of data sets."""
