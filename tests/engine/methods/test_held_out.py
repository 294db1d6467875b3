from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from engine.errors import InvalidSpec
from engine.families import PairModel
from engine.methods import methods
from engine.methods.held_out import held_out_alike, quantiles
from engine.unlearning import Unlearning

Unlearn = Callable[..., Unlearning]
Scores = Callable[[Unlearning, PairModel, Tensor], Tensor]


def test_each_score_takes_the_places_of_its_own_quantiles() -> None:
    # Ranks of the scores: 1, 0; of 8 places the lower score covers 0..3 and the higher one 4..7.
    # Two draws stand at 1/4 and 3/4 of these: 8 * (0 + .25) / 2 = 1, 8 * (0 + .75) / 2 = 3, ...
    found = quantiles(torch.tensor([0.9, 0.2]), draws=2, size=8)
    assert found.tolist() == [[5, 1], [7, 3]]


def test_more_deleted_than_held_out_pairs_share_places() -> None:
    found = quantiles(torch.tensor([0.1, 0.2, 0.3, 0.4]), draws=1, size=2)
    assert found.tolist() == [[0, 0, 1, 1]]


def test_targets_are_validation_pairs_of_the_same_label(unlearn: Unlearn) -> None:
    run = unlearn("gcn_bert", "multidelete", aim="calibrated")
    chosen = held_out_alike(run, draws=3)
    assert chosen.shape == (3 * len(run.forget),)
    assert set(chosen.tolist()) <= set(run.validation.tolist())
    labels = run.inputs.labels
    assert labels[chosen].tolist() == labels[run.forget.repeat(3)].tolist()


def test_a_surer_deleted_pair_goes_to_a_surer_held_out_pair(
    unlearn: Unlearn, scores: Scores
) -> None:
    run = unlearn("albef", "multidelete", aim="calibrated")
    chosen = held_out_alike(run, draws=1)
    mine = scores(run, run.teacher, run.forget).argsort(stable=True)
    targets = scores(run, run.teacher, chosen)[mine]
    assert (targets.diff() >= 0).all()


def test_without_held_out_pairs_the_aim_is_refused(unlearn: Unlearn) -> None:
    run = replace(
        unlearn("albef", "multidelete", aim="calibrated"), validation=torch.zeros(0).long()
    )
    with pytest.raises(InvalidSpec, match="no validation pairs"):
        held_out_alike(run, draws=1)


def test_calibrated_pairs_end_where_held_out_ones_are(unlearn: Unlearn, scores: Scores) -> None:
    def gap(run: Unlearning, model: PairModel) -> float:
        deleted, held_out = scores(run, model, run.forget), scores(run, model, run.validation)
        return float(deleted.median() - held_out.median())

    run = unlearn("albef", "multidelete", aim="calibrated", utility_drop=100, epochs=60)
    before = gap(run, run.teacher)
    assert before > 0
    assert abs(gap(run, methods.get("multidelete").run(run))) < before / 2
