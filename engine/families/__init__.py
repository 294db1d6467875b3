"""Families of models; importing this package registers them."""

from engine.families.albef import Albef
from engine.families.albef_layers import AlbefConfig
from engine.families.base import Encoding, FamilyConfig, Fused, PairModel, Part, families
from engine.families.blip import Blip
from engine.families.blip_sizes import BlipConfig
from engine.families.clip import Clip, ClipConfig
from engine.families.gcn_bert import GcnBert
from engine.families.gcn_bert_sizes import GcnBertConfig

__all__ = [
    "Albef",
    "AlbefConfig",
    "Blip",
    "BlipConfig",
    "Clip",
    "ClipConfig",
    "Encoding",
    "FamilyConfig",
    "Fused",
    "GcnBert",
    "GcnBertConfig",
    "PairModel",
    "Part",
    "families",
]
