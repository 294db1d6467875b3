from collections.abc import Callable

import pytest
import torch

from engine.errors import NonFiniteLoss, NotApplicable
from engine.methods import methods
from engine.methods.ascent import Ascent, AscentParams, check_usable
from engine.training import FitReport
from engine.unlearning import Unlearning

Unlearn = Callable[..., Unlearning]


def ascent(run: Unlearning) -> Ascent:
    return Ascent(run, run.student(), run.parameters_as(AscentParams))


@pytest.mark.parametrize("family", ["albef", "gcn_bert"])
def test_the_terms_of_the_task_are_turned_around(unlearn: Unlearn, family: str) -> None:
    made = ascent(unlearn(family, "neggrad", trained=False))
    torch.manual_seed(0)
    terms = made.loss(made.run.forget)
    torch.manual_seed(0)
    expected = made.run.task.loss(made.student, made.run.inputs, made.run.forget)
    assert list(terms) == [f"negative_{name}" for name in expected]
    for name, value in expected.items():
        assert torch.equal(terms[f"negative_{name}"], -value)


def test_beyond_the_ceiling_nothing_changes(unlearn: Unlearn) -> None:
    made = ascent(unlearn("gcn_bert", "neggrad", trained=False, ceiling=1e-3))
    terms = made.loss(made.run.forget)
    assert [value.item() for value in terms.values()] == [0]
    sum(terms.values(), torch.zeros(())).backward()
    assert all(parameter.grad is None for parameter in made.student.parameters())


def test_a_loss_that_is_no_number_is_beyond_the_ceiling(unlearn: Unlearn) -> None:
    made = ascent(unlearn("gcn_bert", "neggrad", trained=False))
    with torch.no_grad():
        made.student.parts()["head"][0][1].fill_(float("inf"))
    assert set(made.loss(made.run.forget)) == {"at_the_ceiling"}


def test_an_epoch_goes_over_the_deleted_pairs_alone(unlearn: Unlearn) -> None:
    made = ascent(unlearn("gcn_bert", "neggrad", trained=False, batch_size=4))
    rows = torch.cat(list(made.batches(0, torch.Generator().manual_seed(0))))
    assert sorted(rows.tolist()) == made.run.forget.tolist()


def test_few_deleted_pairs_get_more_epochs(unlearn: Unlearn) -> None:
    # Six pairs are three batches of two: 41 steps need 14 epochs.
    made = ascent(
        unlearn("gcn_bert", "neggrad", trained=False, epochs=5, least_steps=41, batch_size=2)
    )
    assert made.schedule().epochs == 14
    made = ascent(
        unlearn("gcn_bert", "neggrad", trained=False, epochs=60, least_steps=41, batch_size=2)
    )
    schedule = made.schedule(patience=5)
    assert schedule.epochs == 60
    # Twenty validations, of which five may bring nothing.
    assert (schedule.validate_every, schedule.patience) == (3, 15)


def test_the_rate_is_a_share_of_the_originals(unlearn: Unlearn) -> None:
    run = unlearn("gcn_bert", "neggrad", trained=False, rate_factor=0.5)
    assert run.recipe is not None
    assert ascent(run).schedule().learning_rate == 0.5 * run.recipe.learning_rate
    assert (
        ascent(unlearn("gcn_bert", "ul", trained=False, learning_rate=0.25))
        .schedule()
        .learning_rate
        == 0.25
    )


def test_an_ascent_without_one_usable_epoch_is_an_error() -> None:
    report = FitReport(1, 1, 1, 0, 0.5, 1)
    check_usable(report)
    with pytest.raises(NonFiniteLoss, match="lower the learning rate"):
        check_usable(FitReport(1, 1, 1, 0, float("-inf"), 1))


@pytest.mark.parametrize("name", ["neggrad", "ul", "lcodec"])
def test_a_single_pair_without_anything_to_contrast_it_with_is_refused(
    unlearn: Unlearn, name: str
) -> None:
    run = unlearn("clip", name, task="retrieval", trained=False)
    run.forget = run.forget[:1]
    with pytest.raises(NotApplicable, match="a single pair has none that clip"):
        methods.get(name).run(run)


@pytest.mark.parametrize("name", ["neggrad", "ul", "lcodec"])
def test_a_single_pair_is_reached_through_the_match_head(unlearn: Unlearn, name: str) -> None:
    run = unlearn("albef", name, trained=False)
    run.forget = run.forget[:1]
    student = methods.get(name).run(run)
    pairs = zip(run.teacher.parameters(), student.parameters(), strict=True)
    assert any(not torch.equal(old, new) for old, new in pairs)
