"""Targets: the mean and the spread stand for all K pairs, and each combination is computed once."""

from collections.abc import Callable

import torch

from engine.methods import targets as module
from engine.methods.targets import (
    distinct,
    equal_weights,
    indifferent_weights,
    targets,
    unrelated_pairs,
)
from engine.unlearning import Truths, Unlearning

Unlearn = Callable[..., Unlearning]

ROWS = (torch.tensor([0, 1, 2, 0]), torch.tensor([1, 0, 3, 1]))
"""Two draws of two deleted pairs: 01 and 10, then 23 and 01."""
VALUES = {(0, 1): [0.0, 0.0], (1, 0): [2.0, 2.0], (2, 3): [4.0, 2.0]}


def test_each_combination_stands_once_and_each_draw_finds_its_own() -> None:
    items, texts, where = distinct(ROWS)
    assert sorted(zip(items.tolist(), texts.tolist(), strict=True)) == sorted(VALUES)
    assert torch.equal(torch.stack((items[where], texts[where])), torch.stack(ROWS))


def test_mean_and_spread_by_hand() -> None:
    items, texts, where = distinct(ROWS)
    pairs = zip(items.tolist(), texts.tolist(), strict=True)
    values = torch.tensor([VALUES[pair] for pair in pairs])
    found = targets(values, where, equal_weights(2, 2))
    # (0, 0) and (4, 2): mean (2, 1), squared distances 4 and 1 for both, so 2.5 a dimension.
    # (2, 2) and (0, 0): mean (1, 1), 1 a dimension.
    torch.testing.assert_close(found.mean, torch.tensor([[2.0, 1.0], [1.0, 1.0]]))
    torch.testing.assert_close(found.spread, torch.tensor([2.5, 1.0]))
    mean, spread = found.at(torch.tensor([1]))
    assert (mean.tolist(), spread.tolist()) == ([[1.0, 1.0]], [1.0])


def test_the_loss_is_the_mean_over_all_draws() -> None:
    generator = torch.Generator().manual_seed(0)
    values, student = (torch.randn(3 * 5, 7, generator=generator) for _ in range(2))
    student = student[:5]
    found = targets(values, torch.arange(15), equal_weights(3, 5))
    mean, spread = found.at(torch.arange(5))
    expected = torch.stack([(student - draw).square().mean() for draw in values.split(5)]).mean()
    torch.testing.assert_close((student - mean).square().mean() + spread.mean(), expected)


def test_values_of_one_dimension_have_a_spread_too() -> None:
    items, _, where = distinct(ROWS)
    found = targets(items.double(), where, equal_weights(2, 2))
    assert found.mean.tolist() == [1.0, 0.5]
    assert found.spread.tolist() == [1.0, 0.25]


def test_weighted_mean_and_spread_by_hand() -> None:
    weights = torch.tensor([[0.75, 1.0], [0.25, 0.0]])
    items, _, where = distinct(ROWS)
    found = targets(items.double(), where, weights)
    # 0 and 2: mean .5, .75 * .25 + .25 * 2.25 = .75 around it; then 1 alone.
    assert found.mean.tolist() == [0.5, 1.0]
    assert found.spread.tolist() == [0.75, 0.0]


def test_weights_by_hand_make_the_mean_logits_even() -> None:
    # Class 0 by 4 and by 2, 3 on average; class 1 by 1. Shares 1/4 and 3/4 make 3/4 of both.
    logits = torch.tensor([[4.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    # Four draws of two deleted pairs: 0, 1, 2, 2 for the first, and class 0 alone for the second.
    where = torch.tensor([0, 0, 1, 0, 2, 1, 2, 1])
    weights = indifferent_weights(logits, where, 4)
    torch.testing.assert_close(weights[:, 0], torch.tensor([1 / 8, 1 / 8, 3 / 8, 3 / 8]))
    torch.testing.assert_close(weights[:, 1], torch.full((4,), 1 / 4))


def test_a_class_that_is_ahead_of_every_mean_of_the_others_has_no_weight() -> None:
    # Whatever weight the first has, it is ahead: least so when the others alone count.
    logits = torch.tensor([[9.0, -9.0, -9.0], [1.0, 2.0, -3.0], [1.0, -3.0, 2.0]])
    weights = indifferent_weights(logits, torch.arange(3), 3)
    torch.testing.assert_close(weights[:, 0], torch.tensor([0.0, 0.5, 0.5]))


def test_weights_are_as_even_as_those_that_a_search_finds() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(12, 3, generator=generator)
    weights = indifferent_weights(logits, torch.arange(12), 12)[:, 0]
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0))
    assert (weights >= 0).all()
    classes = logits.argmax(dim=1)
    means = torch.stack([logits[classes == label].mean(dim=0) for label in range(3)])
    tried = torch.distributions.Dirichlet(torch.full((3,), 0.5)).sample((20_000,))
    assert float((weights @ logits).var()) <= float((tried @ means).var(dim=1).min()) + 1e-3


def test_logits_that_are_all_even_leave_any_weights() -> None:
    weights = indifferent_weights(torch.zeros(4, 3), torch.arange(4), 4)[:, 0]
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0))


def test_deleted_pairs_draw_from_one_pool(unlearn: Unlearn) -> None:
    run = unlearn("gcn_bert", "multidelete")
    everything = torch.cat([run.retain, run.forget])
    generator = torch.Generator().manual_seed(0)
    draws = 2 * module.POOL // len(run.forget)
    rows = unrelated_pairs(Truths(run.inputs), run.forget, everything, draws, generator)
    assert len(rows[0]) == draws * len(run.forget) > module.POOL
    assert len(torch.stack(rows).unique(dim=1)[0]) <= module.POOL
