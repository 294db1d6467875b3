"""Families that make one choice differently which the paper leaves open, as benchmarks register them.

Two choices are a family's: which vector of a pair MultiDelete sees (the paper's R), and which weights
its -F trains. All else, also the weights of the original, is that of the family that is changed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from engine.families import families
from engine.families.albef import Albef
from engine.families.base import Encoding, Fused, PairModel
from engine.families.gcn_bert import GcnBert
from engine.spec import Update


@dataclass(frozen=True)
class Alternative:
    """Another choice of a family.

    Attributes:
        kind: the family with that choice.
        words: what the row of a table says of it.
        update: what is trained where the choice matters. Of -F it matters where a task ranks by a
            cosine: with labels the readout alone is decoupled, which only the fusion module forms.
    """

    kind: type[PairModel]
    words: str
    update: Update = "all"


class GcnBertFused(GcnBert):
    """GCN + BERT that reads the fused vector alone, not concat(graph, text, fused)."""

    family = "gcn_bert_fused"

    def fuse(self, item: Encoding, text: Encoding) -> Fused:
        """See `GcnBert.fuse`; readout ``(B, d)``."""
        found = super().fuse(item, text)
        return Fused(found.readout.chunk(3, dim=-1)[2], found.logits)


class AlbefConcat(Albef):
    """ALBEF that reads concat(image, text, fused), not the fused [CLS] alone."""

    family = "albef_concat"

    def fuse(self, item: Encoding, text: Encoding) -> Fused:
        """See `Albef.fuse`; readout ``(B, (k + 2) d)`` for k images a pair."""
        found = super().fuse(item, text)
        readout = torch.cat([item.pooled, text.pooled, found.readout], dim=-1)
        return Fused(readout, found.logits)


class _Narrower(PairModel):
    """A family whose -F leaves some of its fusion alone; it stands before the family in the bases."""

    left_alone: ClassVar[Sequence[str]]
    """First words of the names of parameters."""

    def set_trainable(self, update: Update) -> list[nn.Parameter]:
        """See `PairModel.set_trainable`; of -F less is trained."""
        chosen = super().set_trainable(update)
        if update == "fusion":
            for name, parameter in self.named_parameters():
                if name.partition(".")[0] in self.left_alone:
                    parameter.requires_grad_(requires_grad=False)
        return [parameter for parameter in chosen if parameter.requires_grad]


class AlbefUnprojected(_Narrower, Albef):
    """ALBEF of which -F trains cross-attention and head, not the ITC projections and temperature."""

    family = "albef_unprojected"
    left_alone = ("item_projection", "text_projection", "raw_temperature")


class AlbefProjections(_Narrower, Albef):
    """ALBEF of which -F trains the ITC projections, temperature and head, not the cross-attention."""

    family = "albef_projections"
    left_alone = ("fusion_layers",)


ALTERNATIVES: Mapping[str, Sequence[Alternative]] = {
    GcnBert.family: (Alternative(GcnBertFused, "readout fused alone"),),
    Albef.family: (
        Alternative(AlbefConcat, "readout concatenated"),
        Alternative(AlbefUnprojected, "without projections", "fusion"),
        Alternative(AlbefProjections, "without cross-attention", "fusion"),
    ),
}
"""By the family that they change."""
CHANGED: Mapping[str, str] = {
    other.kind.family: name for name, others in ALTERNATIVES.items() for other in others
}
"""The family that an alternative changes."""


def register() -> None:
    """Make the alternatives known in this process; the engine itself has none of them."""
    for others in ALTERNATIVES.values():
        for other in others:
            if other.kind.family not in families:
                families.register(other.kind.family)(other.kind)
