"""Families whose readout is another one: the same model, of which MultiDelete sees another vector.

The paper leaves open what its R reads. Scores, losses of the task and weights are those of the family
that is changed, so that only what is decoupled and retained differs.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from engine.families import families
from engine.families.albef import Albef
from engine.families.base import Encoding, Fused
from engine.families.gcn_bert import GcnBert


@dataclass(frozen=True)
class Alternative:
    """Another readout of a family.

    Attributes:
        family: with that readout.
        words: what the row of a table says of it.
    """

    family: str
    words: str


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


ALTERNATIVES: Mapping[str, Alternative] = {
    GcnBert.family: Alternative(GcnBertFused.family, "fused alone"),
    Albef.family: Alternative(AlbefConcat.family, "concatenated"),
}
"""By the family whose readout is changed."""
CHANGED: Mapping[str, str] = {other.family: name for name, other in ALTERNATIVES.items()}
"""The family that an alternative changes."""


def register() -> None:
    """Make the alternatives known in this process; the engine itself has none of them."""
    for family in (GcnBertFused, AlbefConcat):
        if family.family not in families:
            families.register(family.family)(family)
