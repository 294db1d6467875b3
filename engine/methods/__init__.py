"""Unlearning methods: importing this package registers every one of them."""

from engine.methods import dtd, erm_ktp, finetune, lcodec, multidelete, neggrad, retrain, ul
from engine.methods.base import Method, MethodParams, methods

__all__ = [
    "Method",
    "MethodParams",
    "dtd",
    "erm_ktp",
    "finetune",
    "lcodec",
    "methods",
    "multidelete",
    "neggrad",
    "retrain",
    "ul",
]
