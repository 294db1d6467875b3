from collections.abc import Callable

import pytest
import torch

from engine.errors import NonFiniteLoss
from engine.families import PairModel
from engine.methods import methods
from engine.methods.dtd import Descent, DtDParams, add_noise, noise_scale
from engine.tasks import TrainingRecipe
from engine.unlearning import Unlearning

Unlearn = Callable[..., Unlearning]


def test_the_noise_of_one_step_by_hand() -> None:
    # wd = 1: L = 2, M = 3, m = 1, g = (3 - 1) / (3 + 1) = 1/2. n = 2: ln(1 / delta) = 2 ln 2 =
    # 1.386294, sqrt(6.386294) - sqrt(1.386294) = 2.527112 - 1.177410 = 1.349702.
    # 4 sqrt(2) * 2 * 1/2 / (1 * 2 * 1/2 * 1.349702) = 5.656854 / 1.349702
    assert noise_scale(1, 2, 1.0) == pytest.approx(4.191188, abs=1e-5)


def test_the_noise_of_two_steps_by_hand() -> None:
    # As above with g^2 = 1/4: 4 sqrt(2) * 2 / 4 / (2 * 3/4 * 1.349702) = 2.828427 / 2.024553
    assert noise_scale(2, 2, 1.0) == pytest.approx(1.397063, abs=1e-5)


def test_the_noise_shrinks_with_steps_and_with_pairs() -> None:
    assert noise_scale(1000, 2573, 0.01) < noise_scale(10, 2573, 0.01) / 1000
    assert noise_scale(10, 145_000, 0.01) < noise_scale(10, 2573, 0.01) / 30


def test_noise_has_the_asked_deviation_and_falls_on_what_is_updated_alone(unlearn: Unlearn) -> None:
    run = unlearn("albef", "dtd", update="fusion", trained=False)
    student = run.student()
    add_noise(student, 0.25, seed=3)
    for part in ("item", "text"):
        pairs = zip(run.teacher.parts()[part], student.parts()[part], strict=True)
        assert all(torch.equal(old, new) for (_, old), (_, new) in pairs)
    noise = difference(run.teacher, student, "fusion")
    assert len(noise) > 5000
    assert float(noise.std()) == pytest.approx(0.25, rel=0.05)
    assert abs(float(noise.mean())) < 0.02
    other = run.student()
    add_noise(other, 0.25, seed=4)
    assert not torch.equal(difference(run.teacher, other, "fusion"), noise)


def difference(old: PairModel, new: PairModel, part: str) -> torch.Tensor:
    pairs = zip(old.parts()[part], new.parts()[part], strict=True)
    return torch.cat([(b - a).flatten() for (_, a), (_, b) in pairs]).detach()


@pytest.mark.parametrize("steps", [1, 3, 4, 17])
def test_as_many_steps_are_taken_on_retained_pairs_as_asked(unlearn: Unlearn, steps: int) -> None:
    # 15 retained pairs in batches of four: four steps a pass.
    run = unlearn("gcn_bert", "dtd", trained=False, steps=steps, batch_size=4)
    descent = Descent(run, run.student(), run.parameters_as(DtDParams))
    schedule = descent.schedule(TrainingRecipe())
    assert schedule.epochs == {1: 1, 3: 1, 4: 1, 17: 5}[steps]
    made = [
        batch
        for epoch in range(schedule.epochs)
        for batch in descent.batches(epoch, torch.Generator().manual_seed(epoch))
    ]
    assert len(made) == steps
    assert set(torch.cat(made).tolist()) <= set(run.retain.tolist())


def test_the_last_step_is_the_result(unlearn: Unlearn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.methods.dtd.add_noise", lambda *_: None)
    run = unlearn("gcn_bert", "dtd", trained=False, steps=9, batch_size=4)
    methods.get("dtd").run(run)
    [report] = run.reports
    assert (report.steps, report.epochs, report.best_epoch) == (9, 3, 2)


def test_a_run_is_its_steps_plus_the_noise_of_the_formula(
    unlearn: Unlearn, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, object] = {"steps": 2, "weight_decay": 1.0}
    noisy = methods.get("dtd").run(unlearn("gcn_bert", "dtd", trained=False, **given))
    run = unlearn("gcn_bert", "dtd", trained=False, **given)
    monkeypatch.setattr("engine.methods.dtd.add_noise", lambda *_: None)
    plain = methods.get("dtd").run(run)
    noise = torch.cat([difference(plain, noisy, part) for part in noisy.parts()])
    pairs = len(run.retain) + len(run.forget)
    assert float(noise.std()) == pytest.approx(noise_scale(2, pairs, 1.0), rel=0.05)
    assert run.reports[0].steps == 2


def test_noise_that_leaves_no_finite_score_ends_the_run(
    unlearn: Unlearn, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = unlearn("gcn_bert", "dtd", trained=False)
    monkeypatch.setattr("engine.methods.dtd.noise_scale", lambda *_: 1e30)
    with pytest.raises(NonFiniteLoss, match="take more steps"):
        methods.get("dtd").run(run)
