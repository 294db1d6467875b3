"""Unlearning methods: importing this package registers every one of them."""

from engine.methods import finetune, multidelete, retrain
from engine.methods.base import Method, MethodParams, methods

__all__ = ["Method", "MethodParams", "finetune", "methods", "multidelete", "retrain"]
