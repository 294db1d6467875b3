"""What both loops work on: pairs made of noise, an untrained teacher and an unlearning run.

Speed and equality of two losses need no model that has learned anything, so nothing is trained and
no file is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BlipConfig as BlipLayout

from benchmarks.figures import BenchmarkError
from engine.data.items import GraphItem
from engine.data.pairs import ItemStore, Pair, PairDataset
from engine.families import FamilyConfig, PairModel, families
from engine.families.albef_layers import AlbefConfig
from engine.families.blip_sizes import BlipConfig, fields_of
from engine.inputs import Inputs
from engine.methods.multidelete_params import MultiDeleteParams
from engine.monitor import Monitor
from engine.spec import Modality, Split, Update
from engine.tasks import Classification, tasks
from engine.unlearning import Unlearning

WORDS = tuple(f"{a}{b}{c}" for a in "bdgklmnprt" for b in "aeiou" for c in "lmnrst")
NODES = 24
"""Nodes of a graph: the mean of PGR."""


@dataclass(frozen=True)
class Size:
    """How large everything is.

    Attributes:
        batch: deleted pairs in a step, and at least as many retained ones.
        steps: in an epoch; D_f is that many batches, and D_r has as many pairs.
        pixels: height and width of images.
        words: of a text.
        published: whether the model has its published sizes, at so many pixels, or tiny ones.
        family: of the model, unless another one is asked for.
    """

    batch: int
    steps: int
    pixels: int
    words: int
    published: bool = False
    family: str = "albef"


SIZES: Mapping[str, Size] = {
    "tiny": Size(batch=16, steps=4, pixels=32, words=6),
    # Captions of Flickr30K have some 14 words. Few pairs: a step takes seconds on two cores.
    "base": Size(batch=2, steps=2, pixels=224, words=14, published=True),
    # What a GPU is busy with; it runs on any machine, with fewer pairs by --batch and --steps.
    "blip-base-384": Size(batch=32, steps=4, pixels=384, words=14, published=True, family="blip"),
}
PLAIN_PAPER: Mapping[str, Any] = {
    "alpha": 1.0,
    "beta": 1.0,
    "gamma": 1.0,
    "mismatched": 0.0,
    "neighbours": 0,
    "held_out": 0.0,
    "draws": 1,
    "retain_ratio": 1.0,
    "least_retained": 2,
    "target": 0.0,
}
"""The paper's loss: all weights 1, one unrelated pair, as many retained pairs as deleted ones, and a push
that never fades."""
SETTINGS: Mapping[str, Mapping[str, Any]] = {"paper": PLAIN_PAPER, "default": {}}


@dataclass(frozen=True)
class World:
    """An unlearning run, and inputs of the same pairs for a loop that keeps nothing.

    All images are opened: what that takes is no part of a step.
    """

    run: Unlearning
    plain_inputs: Inputs


class Noise(ItemStore):
    """Images or graphs that their reference, a number, is the seed of."""

    def __init__(self, modality: Modality, pixels: int) -> None:
        self.modality = modality
        self.pixels = pixels

    def load(self, reference: str) -> Any:
        """See `ItemStore.load`."""
        random = np.random.default_rng(int(reference))
        if self.modality == "graph":
            return _graph(random)
        shape = (self.pixels, self.pixels, 3)
        return Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8))


def _graph(random: np.random.Generator) -> GraphItem:
    """Return a star around the first entity, with nodes that other graphs have, too."""
    nodes = random.choice(10 * NODES, NODES, replace=False)
    rim = np.arange(1, NODES)
    edges = np.stack([np.append(rim * 0, rim), np.append(rim, rim * 0)])
    return GraphItem(nodes=nodes, edges=edges, texts=[f"node {WORDS[n % 300]}" for n in nodes])


def first_task(family: str) -> str:
    """Return the first task that a family can do; raises `BenchmarkError` if there is none."""
    for name in tasks:
        if tasks.get(name).refusal(families.get(family)) is None:
            return name
    raise BenchmarkError(f"{family} can do none of {', '.join(tasks)}")


def make_world(
    family: str,
    task: str,
    size: Size,
    params: Mapping[str, Any],
    *,
    update: Update = "all",
    device: str = "cpu",
    earlier: int = 0,
) -> World:
    """Build everything in memory; ``earlier`` of the pairs of D_r were forgotten before.

    Raises:
        BenchmarkError: the family cannot do the task, or its published sizes are not known here.
    """
    kind = families.get(family)
    config = config_for(family, task, size)
    dataset = make_dataset(kind, task, size)
    model = kind.build(config, dataset, 0).to(device)
    model.requires_grad_(requires_grad=False).eval()
    inputs, plain_inputs = Inputs(model, dataset), Inputs(model, dataset)
    for prepared in (inputs, plain_inputs):
        prepared.open_items(model)
    train = inputs.split("train")
    deleted = size.batch * size.steps
    given = MultiDeleteParams.model_validate({"batch_size": size.batch, **params})

    def fresh() -> tuple[PairModel, Inputs]:
        raise BenchmarkError("MultiDelete starts from its teacher")

    run = Unlearning(
        teacher=model,
        task=tasks.get(task)(),
        inputs=inputs,
        forget=train[:deleted],
        retain=train[deleted + earlier :],
        forgotten=train[deleted : deleted + earlier],
        forgotten_by=torch.zeros(earlier, dtype=torch.int64),
        forgotten_d_f=torch.zeros(earlier),
        validation=inputs.split("val"),
        params=given,
        update=update,
        aim="decouple",
        recipe=None,
        seed=0,
        monitor=Monitor(),
        fresh=fresh,
    )
    return World(run, plain_inputs)


def config_for(family: str, task: str, size: Size) -> FamilyConfig:
    """Return the configuration of the model that is measured.

    Raises:
        BenchmarkError: the family cannot do the task, or its published sizes are not known here.
    """
    kind = families.get(family)
    reason = tasks.get(task).refusal(kind)
    if reason is not None:
        raise BenchmarkError(reason)
    if not size.published:
        return kind.tiny()
    if kind.config_class is AlbefConfig:
        sides = (size.pixels, size.pixels)
        return AlbefConfig.published().model_copy(update={"image_size": sides})
    if kind.config_class is BlipConfig:
        # ViT-B/16, and a BERT of 12 layers with cross-attention: what transformers has by default.
        return BlipConfig(**{**fields_of(BlipLayout(), BlipConfig()), "image_size": size.pixels})
    raise BenchmarkError(f"the published sizes are those of albef and blip, and {kind.family} came")


def make_dataset(kind: type[PairModel], task: str, size: Size) -> PairDataset:
    """Return a data set of noise with twice as many training pairs as are deleted."""
    chosen = tasks.get(task)
    items = chosen.items_per_pair
    classes = (len(chosen.classes) or 2) if issubclass(chosen, Classification) else None
    random = np.random.default_rng(0)
    counts: dict[Split, int] = {"train": 2 * size.batch * size.steps, "val": 8, "test": 0}
    pairs: list[Pair] = []
    for split, count in counts.items():
        for _ in range(count):
            number = len(pairs)
            names = tuple(str(number * items + k) for k in range(items))
            words = " ".join(random.choice(WORDS, size.words))
            label = None if classes is None else number % classes
            pairs.append(Pair(f"p{number}", names, names, words, f"t{number}", label, split))
    store = Noise(kind.modality, size.pixels)
    return PairDataset("noise", kind.modality, pairs, store, classes)
