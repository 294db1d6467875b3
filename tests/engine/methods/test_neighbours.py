"""Retained pairs near to deleted ones: found by the teacher's cosines, drawn for each step."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from engine.methods.multidelete import MultiDelete
from engine.methods.multidelete_params import MultiDeleteParams
from engine.methods.neighbours import drawn, nearest
from engine.methods.teacher import Teacher
from engine.unlearning import Unlearning

Unlearn = Callable[..., Unlearning]


def made_of(run: Unlearning) -> MultiDelete:
    return MultiDelete(run, run.student(), run.parameters_as(MultiDeleteParams))


@pytest.mark.parametrize(("family", "across"), [("albef", True), ("gcn_bert", False)])
def test_nearest_by_each_comparison(
    unlearn: Unlearn, monkeypatch: pytest.MonkeyPatch, family: str, *, across: bool
) -> None:
    monkeypatch.setattr("engine.methods.neighbours.NEAREST", 2)
    run = unlearn(family, "multidelete")
    teacher = Teacher(run.teacher, run.inputs, lambda: None)
    found = nearest(teacher, run.forget, run.retain, across=across)

    def vectors(rows: Tensor) -> list[Tensor]:
        item, text = run.inputs.encode(run.teacher, rows)
        if across:
            return list(run.teacher.project(item, text))
        return [functional.normalize(part.pooled, dim=1) for part in (item, text)]

    with torch.no_grad():
        mine, theirs = vectors(run.forget[:1]), vectors(run.retain)
    expected = []
    for i in (0, 1):
        for j in (0, 1) if across else (i,):
            cosines = (mine[i] @ theirs[j].T)[0]
            expected += run.retain[cosines.argsort(descending=True)[:2]].tolist()
    assert found.shape == (len(run.forget), 8 if across else 4)
    assert sorted(found[0].tolist()) == sorted(expected)


def test_as_many_as_asked_of_each_deleted_pair_and_each_pair_once() -> None:
    near = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 4], [7, 7, 7, 7]])
    found = drawn(near, 2, torch.Generator().manual_seed(0)).tolist()
    assert len(found) == len(set(found))
    assert set(found) <= {1, 2, 3, 4, 7}
    assert 7 in found
    assert drawn(near, 4, torch.Generator().manual_seed(0)).tolist() == [1, 2, 3, 4, 7]


def test_steps_hold_neighbours_beside_random_pairs_and_none_twice(unlearn: Unlearn) -> None:
    shared = {"batch_size": 3, "least_retained": 4, "retain_ratio": 1.0, "held_out": 0.0}
    with_them = made_of(unlearn("gcn_bert", "multidelete", neighbours=3, **shared))
    batches = with_them.batches(0, torch.Generator().manual_seed(0))
    assert any(len(batch.retain) > 4 for batch in batches)
    for batch in batches:
        assert len(batch.retain.unique()) == len(batch.retain)
        assert set(batch.retain.tolist()) <= set(with_them.run.retain.tolist())
    without = made_of(unlearn("gcn_bert", "multidelete", neighbours=0, **shared))
    assert {len(batch.retain) for batch in without.batches(0, torch.Generator())} == {4}


def test_held_out_pairs_of_some_items_are_held_and_those_of_others_judge(unlearn: Unlearn) -> None:
    run = unlearn("albef", "multidelete", held_out=1.0)
    made = made_of(run)
    held, judging = made.held, made.selection.judging
    assert sorted([*held.tolist(), *judging.tolist()]) == run.validation.tolist()
    items = run.inputs.item_rows[:, 0]
    assert not set(items[held].tolist()) & set(items[judging].tolist())
    assert len(held)
    for batch in made.batches(0, torch.Generator().manual_seed(0)):
        assert set(batch.retain.tolist()) & set(held.tolist())
        assert not set(batch.retain.tolist()) & set(judging.tolist())


def test_what_repeats_a_deleted_pair_is_not_held(
    unlearn: Unlearn, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = unlearn("albef", "multidelete", held_out=1.0)
    before = made_of(run).held.tolist()
    deleted, copy = int(run.forget[0]), before[0]
    for name in ("item_rows", "text_rows"):  # of inputs that other tests use as well
        shown = getattr(run.inputs, name).clone()
        shown[deleted] = shown[copy]
        monkeypatch.setattr(run.inputs, name, shown)
    assert set(before) - set(made_of(run).held.tolist()) == {copy}


def test_where_none_are_held_all_validation_pairs_judge(unlearn: Unlearn) -> None:
    run = unlearn("gcn_bert", "multidelete", held_out=0.0)
    made = made_of(run)
    assert made.selection.judging.tolist() == run.validation.tolist()
    batch = made.batches(0, torch.Generator().manual_seed(0))[0]
    assert not set(batch.retain.tolist()) & set(run.validation.tolist())
