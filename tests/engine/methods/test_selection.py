from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from engine.families import PairModel
from engine.methods.selection import (
    TOGETHER,
    ForgettingSelection,
    chance_of_auc,
    rank,
    rank_calibrated,
)
from engine.spec import Aim
from engine.unlearning import Unlearning


def test_a_student_that_forgot_more_wins_within_the_tolerance() -> None:
    assert rank(0.9, 30, tolerance=1, target=25) > rank(-0.5, 40, tolerance=1, target=25)


def test_a_student_that_lost_too_much_comes_after_every_other() -> None:
    assert rank(1.1, 25, tolerance=1, target=25) < rank(1.0, 60, tolerance=1, target=25)
    assert rank(1.1, 0, tolerance=1, target=0) < rank(-9.0, 100, tolerance=1, target=0)


def test_where_all_lost_too_much_ten_points_of_forgetting_weigh_one_of_utility() -> None:
    assert rank(2.2, 4, tolerance=1, target=3) > rank(2.1, 19, tolerance=1, target=3)
    assert rank(5.3, 4, tolerance=1, target=3) < rank(2.1, 19, tolerance=1, target=3)
    assert rank(2.1, 3, tolerance=1, target=3) == rank(2.1, 0, tolerance=1, target=3)
    assert rank_calibrated(2.2, 0, tolerance=1) > rank_calibrated(2.1, 0.1, tolerance=1)
    assert rank_calibrated(3.3, 0, tolerance=1) < rank_calibrated(2.1, 0.1, tolerance=1)


def test_beyond_the_target_utility_decides() -> None:
    assert rank(0.1, 24, tolerance=1, target=25) > rank(0.9, 3, tolerance=1, target=25)


def test_the_teacher_itself_scores_as_one_that_lost_and_forgot_nothing(
    unlearn: Callable[..., Unlearning],
) -> None:
    run = unlearn("gcn_bert", "multidelete")
    selection = ForgettingSelection(run, 1.0, 25.0, torch.Generator().manual_seed(0))
    found = selection.score(run.teacher)
    deleted = run.task.scores(run.teacher, run.inputs, selection.deleted)
    retained = run.task.scores(run.teacher, run.inputs, selection.retained)
    wins = (retained[:, None] > deleted[None]).double()
    ties = (retained[:, None] == deleted[None]).double()
    auc = float((wins + ties / 2).mean())
    torch.testing.assert_close(found, 100 - max(25.0, 100 * (1 - auc)), rtol=0, atol=1e-6)


def test_a_loss_that_chance_explains_is_tolerated(
    unlearn: Callable[..., Unlearning], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = unlearn("gcn_bert", "multidelete")
    selection = ForgettingSelection(run, 1.0, 25.0, torch.Generator().manual_seed(0))
    # Of 100 pairs 60 were right; 8 of them are wrong now, and 3 of the others are right: 5 points are
    # lost, with a standard error of sqrt((0.11 - 0.05^2) / 100) = 3.28 points.
    before = torch.cat([torch.full((60,), 100.0), torch.zeros(40)]).double()
    after = before.clone()
    after[:8], after[60:63] = 0.0, 100.0
    selection.before = (before,)
    monkeypatch.setattr(selection, "_trials", lambda _: (after,))
    for tolerance, tolerated in ((1.7, False), (1.75, True)):
        selection.tolerance = tolerance
        assert (selection.score(run.teacher) > 0) is tolerated
        excess = selection.excess(run.teacher)
        assert (excess.value == 0) is tolerated
        assert excess.n == 100
        assert excess.details["lost"] == pytest.approx(5)
        assert excess.details["standard_error"] == pytest.approx(3.28, abs=0.005)


def test_without_validation_pairs_what_was_lost_is_not_available(
    unlearn: Callable[..., Unlearning],
) -> None:
    run = replace(unlearn("gcn_bert", "multidelete"), validation=torch.zeros(0, dtype=torch.int64))
    selection = ForgettingSelection(run, 1.0, 25.0, torch.Generator().manual_seed(0))
    excess = selection.excess(run.teacher)
    assert (excess.value, excess.n) == (None, 0)
    assert excess.unavailable == "there are no validation pairs"


@pytest.mark.parametrize("aim", ["decouple", "calibrated"])
def test_a_student_without_finite_scores_is_the_worst(
    unlearn: Callable[..., Unlearning], monkeypatch: pytest.MonkeyPatch, aim: Aim
) -> None:
    run = unlearn("gcn_bert", "multidelete", aim=aim)
    selection = ForgettingSelection(run, 100.0, 25.0, torch.Generator().manual_seed(0))
    assert selection.score(run.teacher) > 0
    right = selection._scores
    monkeypatch.setattr(
        selection, "_scores", lambda model, rows: right(model, rows).fill_(float("nan"))
    )
    assert selection.score(run.teacher) == float("-inf")


def test_groups_of_trials_weigh_the_same_whatever_their_size(
    unlearn: Callable[..., Unlearning], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = unlearn("gcn_bert", "multidelete")
    selection = ForgettingSelection(run, 0.0, 25.0, torch.Generator().manual_seed(0))
    # Each of 2 and of 4 lost the same, so nothing is left to chance: (10 + 40) / 2 points.
    selection.before = (torch.full((2,), 50.0), torch.full((4,), 50.0))
    monkeypatch.setattr(
        selection, "_trials", lambda _: (torch.full((2,), 40.0), torch.full((4,), 10.0))
    )
    monkeypatch.setattr(selection, "_forgetting", lambda _: 45.0)
    assert selection.score(run.teacher) == pytest.approx(-25 - 4.5)  # ten points of D_f weigh one


def test_under_the_aim_calibrated_the_student_nearest_to_half_wins() -> None:
    assert rank_calibrated(0.9, 0.02, tolerance=1) > rank_calibrated(-0.5, 0.05, tolerance=1)
    assert rank_calibrated(1.1, 0.0, tolerance=1) < rank_calibrated(1.0, 0.5, tolerance=1)
    assert rank_calibrated(0.1, 0.1, tolerance=1) > rank_calibrated(0.2, 0.1, tolerance=1)


def test_distance_is_the_auc_of_deleted_against_validation_pairs_from_half(
    unlearn: Callable[..., Unlearning],
) -> None:
    run = unlearn("gcn_bert", "multidelete", aim="calibrated")
    selection = ForgettingSelection(run, 1.0, 25.0, torch.Generator().manual_seed(0))
    deleted = run.task.scores(run.teacher, run.inputs, run.forget)
    held_out = run.task.scores(run.teacher, run.inputs, run.validation)
    wins = (deleted[:, None] > held_out[None]).double()
    ties = (deleted[:, None] == held_out[None]).double()
    selection.chance = 0.01
    expected = max(0.0, abs(float((wins + ties / 2).mean()) - 0.5) - 0.01)
    assert expected > 0
    torch.testing.assert_close(selection.distance(run.teacher), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(
        selection.score(run.teacher), 100 - 100 * expected, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(
    ("positives", "negatives", "error"),
    # (90 + 352 + 1) / (12 * 90 * 352) = 0.0011653, whose root is 0.03414; (1 + 3 + 1) / 36 is more.
    [(90, 352, 0.03414), (352, 90, 0.03414), (1, 3, 0.05), (5, 0, 0.0)],
)
def test_an_auc_of_groups_that_are_alike_differs_from_half_by_its_standard_error(
    positives: int, negatives: int, error: float
) -> None:
    assert chance_of_auc(positives, negatives) == pytest.approx(error, abs=1e-5)


@pytest.mark.parametrize(
    ("aim", "deleted", "left"),
    [
        ("decouple", 0.40, 1.0),
        ("decouple", 0.25, 1.0),
        ("decouple", 0.22, 0.25),
        ("decouple", 0.20, 0.0),
        # 0.52 counts as 0.5 here.
        ("calibrated", 0.70, 1.0),
        ("calibrated", 0.58, 1.0),
        ("calibrated", 0.54, 1 / 3),
        ("calibrated", 0.52, 0.0),
        ("calibrated", 0.45, 0.0),
    ],
)
def test_deleted_pairs_of_a_label_are_pushed_until_they_are_at_the_goal(
    unlearn: Callable[..., Unlearning],
    monkeypatch: pytest.MonkeyPatch,
    aim: Aim,
    deleted: float,
    left: float,
) -> None:
    run = unlearn("gcn_bert", "multidelete", aim=aim)
    selection = ForgettingSelection(run, 1.0, 25.0, torch.Generator().manual_seed(0))
    selection.chance = 0.02
    selection.retained = torch.arange(1000, 1100)
    run.validation = selection.retained
    labels = run.inputs.labels
    assert len(labels[run.forget].unique()) == 2
    longer = torch.cat([labels, torch.zeros(1100 - len(labels), dtype=torch.int64)])
    longer[1050:] = 1
    monkeypatch.setattr(run.inputs, "labels", longer)

    def scores(model: PairModel, rows: Tensor) -> Tensor:
        del model
        if len(rows) == 100:  # evenly from 0 to 1, and those of label 1 from 2 on
            return torch.cat([(torch.arange(50) + 0.5) / 50, 2 + (torch.arange(50) + 0.5) / 50])
        # Deleted pairs of label 1 are below all others of it, and the rest where it is asked.
        return torch.where(run.inputs.labels[rows] == 1, 1.5, deleted)

    monkeypatch.setattr(selection, "_scores", scores)
    expected = torch.where(run.inputs.labels[run.forget] == 1, 0.0, left)
    torch.testing.assert_close(selection.unfinished(run.teacher), expected, rtol=0, atol=1e-5)


def test_a_label_that_no_other_pair_has_is_compared_with_all_of_them(
    unlearn: Callable[..., Unlearning], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = unlearn("gcn_bert", "multidelete")
    selection = ForgettingSelection(run, 1.0, 25.0, torch.Generator().manual_seed(0))
    labels = run.inputs.labels.clone()
    labels[run.forget[0]] = 7
    monkeypatch.setattr(run.inputs, "labels", labels)
    monkeypatch.setattr(
        selection, "_scores", lambda _, rows: torch.where(rows == run.forget[0], 0.1, 0.5)
    )
    assert selection.unfinished(run.teacher)[0] == 0.0
    monkeypatch.setattr(
        selection, "_scores", lambda _, rows: torch.where(rows == run.forget[0], 0.9, 0.5)
    )
    assert selection.unfinished(run.teacher)[0] == 1.0


def test_to_a_target_of_0_pairs_are_pushed_for_ever(
    unlearn: Callable[..., Unlearning], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = unlearn("gcn_bert", "multidelete")
    selection = ForgettingSelection(run, 1.0, 0.0, torch.Generator().manual_seed(0))
    monkeypatch.setattr(selection, "_scores", lambda _, rows: torch.zeros(len(rows)))
    assert selection.unfinished(run.teacher).tolist() == [1.0] * len(run.forget)


def test_without_labels_all_deleted_pairs_are_of_one_kind(
    unlearn: Callable[..., Unlearning],
) -> None:
    run = unlearn("albef", "multidelete")
    selection = ForgettingSelection(run, 1.0, 25.0, torch.Generator().manual_seed(0))
    deleted = run.task.scores(run.teacher, run.inputs, selection.deleted)
    retained = run.task.scores(run.teacher, run.inputs, selection.retained)
    above = (deleted[:, None] > retained).double() + (deleted[:, None] == retained).double() / 2
    selection.target = 100 * float(above.mean()) + 1.0
    found = selection.unfinished(run.teacher)
    torch.testing.assert_close(found, torch.full_like(found, 0.75))


def test_each_pair_is_pushed_by_where_it_stands_itself_where_that_is_asked_for(
    unlearn: Callable[..., Unlearning], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = unlearn("albef", "multidelete")
    run = replace(run, forget=run.forget[:4])
    generator = torch.Generator().manual_seed(0)
    selection = ForgettingSelection(run, 1.0, 22.0, generator, singly=True)
    stood = torch.tensor([90.0, 21.0, 19.0, 3.0])
    monkeypatch.setattr(selection, "_above", lambda *_: stood)
    assert selection.unfinished(run.teacher).tolist() == [1.0, 0.75, 0.25, 0.0]
    stood = torch.tensor([2.0, 1.5, 0.5, 0.0])  # lower than the push fades
    selection.target = 2.0
    assert selection.unfinished(run.teacher).tolist() == [1.0, 0.75, 0.25, 0.0]
    selection.target = 0.0
    assert selection.unfinished(run.teacher).tolist() == [1.0] * 4


def test_under_calibrated_no_pair_is_pushed_by_where_it_stands_itself(
    unlearn: Callable[..., Unlearning],
) -> None:
    run = unlearn("gcn_bert", "multidelete", aim="calibrated")
    made = [
        ForgettingSelection(run, 1.0, 20.0, torch.Generator().manual_seed(0), singly=singly)
        for singly in (False, True)
    ]
    kinds, single = (selection.unfinished(run.teacher) for selection in made)
    torch.testing.assert_close(kinds, single)


def test_where_pairs_stand_is_the_share_of_retained_pairs_below_them(
    unlearn: Callable[..., Unlearning],
) -> None:
    run = unlearn("gcn_bert", "multidelete")
    selection = ForgettingSelection(run, 1.0, 25.0, torch.Generator().manual_seed(0))
    stood = selection.standing(run.teacher, selection.deleted)
    retained = run.task.scores(run.teacher, run.inputs, selection.retained)
    first = run.task.scores(run.teacher, run.inputs, selection.deleted[:1])
    below = (retained < first).double().mean() + (retained == first).double().mean() / 2
    assert float(stood[0]) == pytest.approx(100 * float(below), abs=1e-4)
    # Their mean is D_f.
    assert float(stood.mean()) == pytest.approx(selection._forgetting(run.teacher), abs=1e-4)
    assert len(selection.standing(run.teacher, selection.deleted[:0])) == 0


def test_earlier_pairs_are_pushed_again_as_far_as_they_rose_together(
    unlearn: Callable[..., Unlearning], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = unlearn("gcn_bert", "multidelete")
    selection = ForgettingSelection(run, 1.0, 25.0, torch.Generator().manual_seed(0))

    def pushed(*now: float) -> list[float]:
        monkeypatch.setattr(selection, "_above", lambda *_: torch.tensor(now))
        d_f, one = torch.full((4,), 20.0), torch.zeros(4)
        found: list[float] = selection.risen(run.teacher, run.retain[:4], d_f, one).tolist()
        return found

    # Together 5 higher: in full, and none that is not higher itself.
    assert pushed(18.0, 22.0, 20.0, 40.0) == [0.0, 1.0, 0.0, 1.0]
    assert pushed(14.0, 22.0, 25.0, 23.0) == [0.0, 0.25, 0.25, 0.25]  # 1 higher: a quarter of it
    assert pushed(30.0, 10.0, 20.0, 20.0) == [0.0] * 4
    assert pushed(30.0, 0.0, 0.0, 20.0) == [0.0] * 4  # together lower, whatever one of them did


@pytest.mark.parametrize(("auc", "push"), [(0.9, 1.0), (0.58, 0.5), (0.55, 0.0), (0.3, 0.0)])
def test_under_the_aim_calibrated_none_is_pushed_below_what_was_never_seen(
    unlearn: Callable[..., Unlearning], monkeypatch: pytest.MonkeyPatch, auc: float, push: float
) -> None:
    run = unlearn("gcn_bert", "multidelete", aim="calibrated")
    selection = ForgettingSelection(run, 1.0, 25.0, torch.Generator().manual_seed(0))
    monkeypatch.setattr("engine.methods.selection.chance_of_auc", lambda *_: 0.05)
    monkeypatch.setattr(selection, "_above", lambda *_: torch.full((100,), 50.0))
    # Of the earlier pairs as many as that score above every unseen one, and the others below.
    above = torch.where(torch.arange(100) < round(100 * auc), 2.0, 0.0)
    unseen = torch.ones(len(run.validation))
    earlier = run.retain[:1].repeat(100)
    monkeypatch.setattr(selection, "_scores", lambda _, rows: above if rows is earlier else unseen)
    found = selection.risen(run.teacher, earlier, torch.zeros(100), torch.zeros(100))
    assert found.tolist() == pytest.approx([push] * 100, abs=1e-5)


@pytest.mark.parametrize("aim", ["decouple", "calibrated"])
def test_earlier_pairs_are_pushed_as_far_as_those_of_their_own_request_rose(
    unlearn: Callable[..., Unlearning], monkeypatch: pytest.MonkeyPatch, aim: Aim
) -> None:
    run = unlearn("gcn_bert", "multidelete", aim=aim)
    selection = ForgettingSelection(run, 1.0, 25.0, torch.Generator().manual_seed(0))
    # Two requests that a mean can be told of, one that rose by 2 and one that fell, and two of one
    # pair, which rose by 1 together.
    requests = torch.tensor([3, 0] * TOGETHER + [1, 2])
    d_f = torch.tensor([10.0, 20.0] * TOGETHER + [5.0, 6.0])
    now = torch.tensor([12.0, 17.0] * TOGETHER + [10.0, 3.0])
    monkeypatch.setattr(selection, "_above", lambda *_: now)
    rows, unseen = run.retain[:1].repeat(len(now)), torch.full((len(run.validation),), 0.5)
    # Under calibrated: those of the first two stand above all unseen pairs, the single ones below.
    scores = torch.tensor([1.0, 1.0] * TOGETHER + [0.0, 0.0])
    monkeypatch.setattr(selection, "_scores", lambda _, of: scores if of is rows else unseen)
    found = selection.risen(run.teacher, rows, d_f, requests).tolist()
    alone = [0.25, 0.0] if aim == "decouple" else [0.0, 0.0]
    assert found == [0.5, 0.0] * TOGETHER + alone


def test_where_no_audit_told_it_a_request_ended_where_it_stands_in_the_teacher(
    unlearn: Callable[..., Unlearning], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = unlearn("gcn_bert", "multidelete")
    selection = ForgettingSelection(run, 1.0, 25.0, torch.Generator().manual_seed(0))
    requests = torch.tensor([0, 1] * TOGETHER)
    now = torch.tensor([4.0, 30.0] * (TOGETHER // 2) + [8.0, 30.0] * (TOGETHER // 2))
    monkeypatch.setattr(selection, "standing", lambda *_: now)
    told = torch.tensor([float("nan"), 25.0] * TOGETHER)
    assert selection.stood(run.retain[:1], told, requests).tolist() == [6.0, 25.0] * TOGETHER
