"""How far MultiDelete goes: to its target, or as far as pairs that were never seen."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from engine.errors import InvalidSpec
from engine.families import PairModel
from engine.methods import methods
from engine.methods.multidelete import MultiDelete
from engine.methods.multidelete_params import MultiDeleteParams
from engine.spec import Aim
from engine.unlearning import Unlearning

Unlearn = Callable[..., Unlearning]
Scores = Callable[[Unlearning, PairModel, Tensor], Tensor]


def made_of(run: Unlearning) -> MultiDelete:
    """The objective; nothing of it needs frozen encodings to be right."""
    return MultiDelete(run, run.student(), run.parameters_as(MultiDeleteParams))


@pytest.mark.parametrize("push", [1.0, 0.25, 0.0])
def test_each_deleted_pair_is_pushed_as_much_as_its_kind_needs(
    unlearn: Unlearn, monkeypatch: pytest.MonkeyPatch, push: float
) -> None:
    made = made_of(unlearn("gcn_bert", "multidelete", batch_size=64))
    left = torch.ones(len(made.run.forget))
    left[0] = push
    monkeypatch.setattr(made.selection, "unfinished", lambda student: left)
    batch = made.batches(0, torch.Generator().manual_seed(0))[0]
    pushed = made.loss(batch)["decoupling"].detach()
    assert not made.push[len(left) :].any()  # nothing that was deleted earlier has risen
    alone = torch.zeros_like(made.push)
    alone[0] = 1.0
    made.push = torch.cat([torch.ones(len(left)), made.push[len(left) :]])
    everything = made.loss(batch)["decoupling"].detach()
    made.push = alone
    first = made.loss(batch)["decoupling"].detach()
    torch.testing.assert_close(pushed, everything - (1 - push) * first)


@pytest.mark.parametrize(
    ("family", "given", "pushes"),
    [
        ("albef", {}, [1.0, 0.5, 0.0]),  # it ranks
        ("albef", {"singly": False}, None),
        ("gcn_bert", {}, None),
        ("gcn_bert", {"singly": True}, [1.0, 0.5, 0.0]),
    ],
)
def test_where_a_task_ranks_each_deleted_pair_is_pushed_by_its_own_place(
    unlearn: Unlearn,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    given: dict[str, bool],
    pushes: list[float] | None,
) -> None:
    run = unlearn(family, "multidelete", target=2.0, **given)
    made = made_of(replace(run, forget=run.forget[:3]))
    stood = torch.tensor([50.0, 1.0, 0.0])
    monkeypatch.setattr(made.selection, "standing", lambda model, rows: stood[: len(rows)])
    made.batches(0, torch.Generator().manual_seed(0))
    if pushes is None:  # one label may be pushed more than another, and all of it alike
        labels = made.run.inputs.labels[made.run.forget] if family == "gcn_bert" else stood * 0
        for label in labels.unique():
            assert len(made.push[:3][labels == label].unique()) == 1
        assert not made.selection.singly
    else:
        assert made.push[:3].tolist() == pushes


@pytest.mark.parametrize(
    ("aim", "healing", "pushes"),
    [
        ("decouple", 0.0, [1, 1, 1, 1]),
        ("decouple", 0.25, [1, 1, 1, 0]),
        ("decouple", 0.5, [1, 1, 0, 0]),
        ("calibrated", 0.5, [1, 1, 1, 1]),
    ],
)
def test_the_last_passes_push_nothing_under_decouple(
    unlearn: Unlearn, monkeypatch: pytest.MonkeyPatch, aim: Aim, healing: float, pushes: list[int]
) -> None:
    params = {"epochs": 4, "least_steps": 0, "healing": healing}
    made = made_of(unlearn("albef", "multidelete", aim=aim, **params))
    count = len(made.run.forget)
    monkeypatch.setattr(made.selection, "unfinished", lambda student: torch.ones(count))
    for epoch, push in enumerate(pushes):
        made.batches(epoch, torch.Generator().manual_seed(0))
        assert made.push[:count].tolist() == [push] * count


def test_an_earlier_deleted_pair_counts_as_one_of_this_run_when_it_is_pushed_again(
    unlearn: Unlearn, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = made_of(unlearn("gcn_bert", "multidelete", batch_size=64))
    deleted, earlier = len(made.run.forget), len(made.earlier)
    again = torch.zeros(earlier)
    again[1] = 0.5
    monkeypatch.setattr(made.selection, "unfinished", lambda student: torch.ones(deleted))
    monkeypatch.setattr(made.selection, "risen", lambda student, rows, *_: again[: len(rows)])
    batch = made.batches(0, torch.Generator().manual_seed(0))[0]
    risen = made.earlier.tolist().index(batch.forgotten[1])
    assert made.push[deleted + risen] == 0.5
    pushed = made.loss(batch)["decoupling"].detach()
    made.push = torch.zeros(deleted + earlier)
    made.push[:deleted] = 1.0
    own = made.loss(batch)["decoupling"].detach()
    made.push = torch.zeros(deleted + earlier)
    made.push[deleted + risen] = 1.0
    other = made.loss(batch)["decoupling"].detach()
    assert other > 0
    torch.testing.assert_close(pushed, own + 0.5 * other)
    # Together no more than the pairs of this run, however many they are.
    made.push = torch.zeros(deleted + earlier)
    made.push[deleted + risen] = 3.0 * deleted
    torch.testing.assert_close(made.loss(batch)["decoupling"].detach(), deleted * other)


def test_each_earlier_pair_is_judged_with_those_of_its_own_request(
    unlearn: Unlearn, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = unlearn("gcn_bert", "multidelete", batch_size=4)
    run.forgotten_by = run.forgotten + 100  # numbers that tell the pair
    run.forgotten_d_f = run.forgotten / 1000
    made = made_of(run)
    asked = []

    def risen(_: PairModel, rows: Tensor, d_f: Tensor, requests: Tensor) -> Tensor:
        asked.append((rows, d_f, requests))
        return torch.zeros_like(d_f)

    monkeypatch.setattr(made.selection, "risen", risen)
    made.batches(0, torch.Generator().manual_seed(0))
    [(rows, d_f, requests)] = asked
    assert sorted(rows.tolist()) == run.forgotten.tolist()
    assert torch.equal(requests, rows + 100)
    assert torch.equal(d_f, rows / 1000)


def test_earlier_pairs_that_rose_are_pushed_down_again(unlearn: Unlearn, scores: Scores) -> None:
    found = []
    for stood in (0.0, 100.0):  # lower than they can be, and higher
        # What holds them where the teacher has them would work against the push.
        run = unlearn("gcn_bert", "multidelete", beta=1, epochs=60, least_steps=0)
        made = made_of(run)
        made.stood = torch.full_like(made.stood, stood)
        run.fit(made.student, made, replace(made.schedule(), keep="last"))
        found.append(float(scores(run, made.student, run.forgotten).mean()))
    assert found[0] < found[1] - 0.1


def test_without_held_out_pairs_the_aim_is_refused(unlearn: Unlearn) -> None:
    run = unlearn("albef", "multidelete", aim="calibrated")
    with pytest.raises(InvalidSpec, match="no validation pairs"):
        made_of(replace(run, validation=run.validation[:0]))


def test_calibrated_pairs_end_where_held_out_ones_are(unlearn: Unlearn, scores: Scores) -> None:
    run = unlearn("albef", "multidelete", aim="calibrated", utility_drop=100, epochs=60)
    # Pairs that the original tells apart for certain: what so small a model has learned differs
    # from one processor to the next.
    known = torch.cat([run.forget, run.retain])
    order = scores(run, run.teacher, known).argsort(descending=True)
    apart = scores(run, run.teacher, run.validation).argsort()[:3]
    run = replace(
        run,
        forget=known[order[:6]],
        retain=known[order[6:]],
        validation=run.validation[apart],
    )

    def higher(model: PairModel) -> float:
        deleted, held_out = scores(run, model, run.forget), scores(run, model, run.validation)
        return float((deleted[:, None] > held_out[None]).double().mean())

    assert higher(run.teacher) > 0.9
    assert abs(higher(methods.get("multidelete").run(run)) - 0.5) < 0.3
