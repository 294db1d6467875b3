from dataclasses import replace

import pytest

from engine.data.pairs import PairDataset
from engine.errors import InvalidSpec
from engine.families import Albef, Clip, GcnBert
from engine.tasks import VisualEntailment


def test_families_without_classes_or_images_are_refused_with_the_reason() -> None:
    assert VisualEntailment.refusal(Albef) is None
    assert "needs a class head" in (VisualEntailment.refusal(Clip) or "")
    assert "needs image data" in (VisualEntailment.refusal(GcnBert) or "")


def test_the_classes_are_numbered_as_in_published_heads() -> None:
    assert VisualEntailment.classes == ("contradiction", "neutral", "entailment")


def test_two_classes_are_no_entailment_and_the_missing_one_is_named(
    entailment_data: PairDataset,
) -> None:
    pairs = [pair for pair in entailment_data.pairs if pair.label != 2]
    with pytest.raises(InvalidSpec, match=r"has 3 classes.*no pair .* has a label above 1"):
        VisualEntailment().check(replace(entailment_data, pairs=pairs, classes=2))
