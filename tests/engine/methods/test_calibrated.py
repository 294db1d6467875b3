"""MultiDelete with the aim ``calibrated``: as far as pairs that were never seen, and no farther."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from engine.errors import InvalidSpec
from engine.families import PairModel
from engine.methods import methods
from engine.methods.multidelete import FADING, MultiDelete
from engine.methods.multidelete_params import MultiDeleteParams
from engine.unlearning import Unlearning

Unlearn = Callable[..., Unlearning]
Scores = Callable[[Unlearning, PairModel, Tensor], Tensor]


def made_of(run: Unlearning) -> MultiDelete:
    """The objective; nothing of it needs frozen encodings to be right."""
    return MultiDelete(run, run.student(), run.parameters_as(MultiDeleteParams))


@pytest.mark.parametrize(
    ("auc", "push"), [(0.9, 1.0), (0.5 + FADING / 4, 0.25), (0.5, 0.0), (0.3, 0.0)]
)
def test_the_push_fades_as_deleted_pairs_come_down_to_unseen_ones(
    unlearn: Unlearn, monkeypatch: pytest.MonkeyPatch, auc: float, push: float
) -> None:
    made = made_of(unlearn("gcn_bert", "multidelete", aim="calibrated"))
    monkeypatch.setattr(made.selection, "unseen_auc", lambda student: auc)
    batch = made.batches(0, torch.Generator().manual_seed(0))[0]
    assert made.push == pytest.approx(push)
    pushed = float(made.loss(batch)["decoupling"].detach())
    made.push = 1.0
    assert pushed == pytest.approx(push * float(made.loss(batch)["decoupling"].detach()))


def test_the_papers_aim_pushes_always(unlearn: Unlearn, monkeypatch: pytest.MonkeyPatch) -> None:
    made = made_of(unlearn("gcn_bert", "multidelete"))
    monkeypatch.setattr(made.selection, "unseen_auc", lambda student: 0.1)
    made.batches(0, torch.Generator().manual_seed(0))
    assert made.push == 1.0


def test_without_held_out_pairs_the_aim_is_refused(unlearn: Unlearn) -> None:
    run = unlearn("albef", "multidelete", aim="calibrated")
    with pytest.raises(InvalidSpec, match="no validation pairs"):
        made_of(replace(run, validation=run.validation[:0]))


def test_calibrated_pairs_end_where_held_out_ones_are(unlearn: Unlearn, scores: Scores) -> None:
    def gap(run: Unlearning, model: PairModel) -> float:
        deleted, held_out = scores(run, model, run.forget), scores(run, model, run.validation)
        return float(deleted.median() - held_out.median())

    run = unlearn("albef", "multidelete", aim="calibrated", utility_drop=100, epochs=60)
    before = gap(run, run.teacher)
    assert before > 0
    assert abs(gap(run, methods.get("multidelete").run(run))) < before / 2
