from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from engine.errors import NonFiniteLoss
from engine.families import PairModel
from engine.inputs import Inputs
from engine.methods import methods
from engine.methods.lcodec import LCodecParams, Scrubber, newton_step, shaken
from engine.unlearning import Unlearning

Unlearn = Callable[..., Unlearning]


def scrubber(run: Unlearning) -> Scrubber:
    return Scrubber(run, run.student(), run.parameters_as(LCodecParams))


def test_a_newton_step_removes_a_pair_from_a_quadratic_by_hand() -> None:
    # Pair i costs 1/2 sum_k h_k (w_k - c_ik)^2 with h = (2, 5). The pairs (0, 0), (2, 4) and
    # (4, -2) have their minimum at (2, 2/3); without the third it is at (1, 2).
    curvature, weights = torch.tensor([2.0, 5.0]), torch.tensor([2.0, 2 / 3])
    gradient = curvature * (weights - torch.tensor([4.0, -2.0]))
    step = newton_step(gradient, curvature, damping=0.0, share=1 / 2)
    torch.testing.assert_close(weights + step, torch.tensor([1.0, 2.0]))
    # A curvature of 2 and a damping of 2 halve the step along the first weight.
    damped = newton_step(gradient, curvature, damping=2.0, share=1 / 2)
    assert damped[0].item() == pytest.approx(-0.5)


def test_shaken_layers_are_shifted_and_seen_and_then_as_before() -> None:
    layer = nn.Linear(1, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0], [2.0]]))
        layer.bias.zero_()
    inputs = torch.tensor([[[1.0], [3.0]]])
    # Outputs (1, 2) and (3, 6): their mean is 3, their deviation sqrt((4 + 1 + 0 + 9) / 4).
    deviation = 3.5**0.5
    with torch.no_grad(), shaken([(layer, 1)], torch.tensor([-2.0])) as seen:
        shaken_outputs = layer(inputs)
    expected = torch.tensor([[[1.0, 2 - 2 * deviation], [3.0, 6 - 2 * deviation]]])
    torch.testing.assert_close(shaken_outputs, expected)
    [mean] = seen[layer, 1]
    assert mean.item() == pytest.approx(4 - 2 * deviation)
    assert layer(inputs).flatten().tolist() == [1, 2, 3, 6]


def test_units_are_the_outputs_of_the_linear_layers_that_are_updated(unlearn: Unlearn) -> None:
    made = scrubber(unlearn("gcn_bert", "lcodec", update="fusion", trained=False, fisher_pairs=2))
    parts = made.student.parts()
    named = {name for part in ("fusion", "head") for name, _ in parts[part]}
    updated = {id(p) for part in ("fusion", "head") for _, p in parts[part]}
    assert {id(weight) for weight in made.weights} == updated
    assert named
    assert len(made.units) == sum(len(w) for w in made.weights if w.ndim > 1)


def test_graph_convolutions_have_units_too(unlearn: Unlearn) -> None:
    made = scrubber(unlearn("gcn_bert", "lcodec", trained=False, fisher_pairs=2))
    weights = {id(weight) for weight in made.weights}
    found = {name for part in made.student.parts().values() for name, p in part if id(p) in weights}
    assert any(name.startswith("convolutions.") for name in found)


def test_fisher_information_is_the_size_of_a_batch_times_the_squared_gradient(
    unlearn: Unlearn,
) -> None:
    run = unlearn("gcn_bert", "lcodec", trained=False, fisher_pairs=8)
    run.retain = run.retain[:8]  # one batch, and every pair in it
    made = scrubber(run)
    terms = run.task.loss(made.student, run.inputs, run.retain)
    gradients = torch.autograd.grad(sum(terms.values(), torch.zeros(())), made.weights)
    for weight, gradient in zip(made.weights, gradients, strict=True):
        torch.testing.assert_close(made.fisher[weight], 8 * gradient**2)


def test_candidates_have_the_largest_gradient(unlearn: Unlearn) -> None:
    run = unlearn("gcn_bert", "lcodec", trained=False, fisher_pairs=2, candidates=5)
    made = scrubber(run)
    gradients = made._gradients(made._loss(run.forget, 0))
    sizes = {
        (layer, at): sum(float((gradients[w][at] ** 2).sum()) for w in layer.parameters())
        for layer, at in made.units
    }
    expected = sorted(sizes, key=sizes.__getitem__)[-5:]
    assert set(made._candidates(gradients)) == set(expected)


@pytest.mark.parametrize("update", ["all", "fusion"])
def test_a_step_changes_the_selected_units_and_nothing_else(unlearn: Unlearn, update: str) -> None:
    short = {"passes": 16, "selected": 3, "candidates": 12, "fisher_pairs": 16}
    run = unlearn("albef", "lcodec", update=update, trained=False, **short)
    made = scrubber(run)
    made.scrub()
    rows = 0
    changed = {id(weight): at for la, at in made.changed for weight in la.parameters()}
    pairs = zip(run.teacher.parameters(), made.student.parameters(), strict=True)
    for old, new in pairs:
        different = (old != new).flatten(1).any(1) if old.ndim > 1 else old != new
        assert not different.any() or id(new) in changed
        rows += int(different.sum()) if old.ndim > 1 else 0
    assert rows == len(made.changed) <= 3
    [report] = run.reports
    weights = [weight[at] for layer, at in made.changed for weight in layer.parameters()]
    assert report.trained_parameters == sum(weight.numel() for weight in weights)


def test_the_cost_is_bounded_by_passes_and_batches(
    unlearn: Unlearn, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = {"passes": 8, "batch_size": 2, "fisher_pairs": 10, "candidates": 4}
    run = unlearn("gcn_bert", "lcodec", trained=False, **short)
    calls = 0
    original = run.task.loss

    def counting(model: PairModel, inputs: Inputs, rows: Tensor) -> dict[str, Tensor]:
        nonlocal calls
        calls += 1
        return original(model, inputs, rows)

    monkeypatch.setattr(run.task, "loss", counting)
    scrubber(run).scrub()
    # Fisher: batches of 8 and 2. Then three batches: a gradient and eight passes each.
    assert calls == 2 + 3 * (1 + 8)
    assert (run.reports[0].steps, run.reports[0].samples) == (3, 6)


def test_the_same_negatives_are_drawn_in_every_pass(unlearn: Unlearn) -> None:
    made = scrubber(unlearn("albef", "lcodec", trained=False, fisher_pairs=8))
    values = {made._loss(made.run.forget, 7).item() for _ in range(3)}
    assert len(values) == 1
    others = {made._loss(made.run.forget, seed).item() for seed in range(20)}
    assert len(others) > 1


def test_a_last_pair_joins_the_batch_before_it(unlearn: Unlearn) -> None:
    run = unlearn("clip", "lcodec", task="retrieval", trained=False, batch_size=5, passes=8)
    scrubber(run).scrub()
    assert run.reports[0].steps == 1


def test_a_step_that_leaves_no_finite_score_ends_the_run(
    unlearn: Unlearn, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = unlearn("gcn_bert", "lcodec", trained=False, passes=8, fisher_pairs=8)
    monkeypatch.setattr(
        "engine.methods.lcodec.newton_step", lambda gradient, *_: gradient + float("inf")
    )
    with pytest.raises(NonFiniteLoss, match="raise the damping"):
        methods.get("lcodec").run(run)
