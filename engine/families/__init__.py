"""Families of models; importing this package registers them."""

from engine.families.albef import Albef, AlbefConfig
from engine.families.base import Encoding, FamilyConfig, Fused, PairModel, Part, families
from engine.families.gcn_bert import GcnBert, GcnBertConfig

__all__ = [
    "Albef",
    "AlbefConfig",
    "Encoding",
    "FamilyConfig",
    "Fused",
    "GcnBert",
    "GcnBertConfig",
    "PairModel",
    "Part",
    "families",
]
