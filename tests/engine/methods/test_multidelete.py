from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from engine.data.pairs import PairDataset
from engine.families import PairModel, Part
from engine.inputs import Inputs
from engine.methods import methods, multidelete
from engine.methods.multidelete import Batch, MultiDelete
from engine.methods.multidelete_params import MultiDeleteParams
from engine.methods.targets import (
    Rows,
    anchored_pairs,
    beside,
    indifferent_weights,
    unrelated_pairs,
)
from engine.monitor import Monitor
from engine.training import Schedule
from engine.unlearning import Unlearning, draw

Unlearn = Callable[..., Unlearning]
Scores = Callable[[Unlearning, PairModel, Tensor], Tensor]
FAMILIES = ["albef", "gcn_bert"]
PLAIN = {"retain_ratio": 1, "least_retained": 6, "held_out": 0}
"""Of D_r a sample alone is retained."""


def objective(run: Unlearning, student: PairModel | None = None) -> MultiDelete:
    """The objective, within a freeze that lasts as long as the inputs."""
    run.inputs.freeze(run.teacher).__enter__()
    params = run.parameters_as(MultiDeleteParams)
    return MultiDelete(run, student or run.student(), params)


@pytest.fixture(autouse=True)
def thaw(learned: Callable[..., tuple[PairModel, Inputs, PairDataset]]) -> None:
    """Inputs are shared between tests: forget what an earlier test froze."""
    for family in FAMILIES:
        learned(family)[1]._frozen.clear()


def moved(run: Unlearning) -> PairModel:
    """A student whose every trainable parameter differs from the teacher's."""
    student = run.student()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in student.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return student.eval()


def readout(run: Unlearning, model: PairModel, items_of: Tensor, texts_of: Tensor) -> Tensor:
    item = run.inputs.encode(model, items_of)[0]
    text = run.inputs.encode(model, texts_of)[1]
    return model.fuse(item, text).readout


def unrelated(run: Unlearning, made: MultiDelete, generator: torch.Generator) -> Rows:
    """The K pairs of each pair that is or was deleted, from what the model may know."""
    params = run.parameters_as(MultiDeleteParams)
    drawn = unrelated_pairs if params.unrelated == "dataset" else anchored_pairs
    pool = torch.cat([run.retain, run.forget])
    own = drawn(made.truths, run.forget, pool, params.draws, generator)
    more = unrelated_pairs(made.truths, made.earlier, pool, params.draws, generator)
    return beside(own, more, params.draws)


def plain(run: Unlearning, made: MultiDelete, batch: Batch) -> dict[str, Tensor]:
    """The three losses as the paper writes them: one pass a term, nothing kept or shared."""
    student, teacher, w = made.student, run.teacher, made.weights
    f, r, kept = batch.forget, batch.retain, torch.cat([batch.retain, batch.forgotten])
    gone = torch.cat([f, batch.forgotten])
    places = batch.targets
    generator = torch.Generator().manual_seed(run.seed)
    known = draw(run.forgotten, len(run.forgotten), generator)
    assert made.earlier.tolist() == known.tolist()
    params = run.parameters_as(MultiDeleteParams)
    rows = unrelated(run, made, generator)
    split = [part.split(len(run.forget) + len(known)) for part in rows]
    draws = [(p[places], q[places]) for p, q in zip(*split, strict=True)]
    mine = readout(run, student, gone, gone)
    shares = torch.full((params.draws, len(run.forget) + len(known)), 1 / params.draws)
    if run.task.labelled:
        logits = teacher.head(readout(run, teacher, *rows))
        shares = indifferent_weights(logits, torch.arange(len(rows[0])), params.draws)
    far = [(mine - readout(run, teacher, p, q)).square().mean(dim=1) for p, q in draws]
    decoupling = (shares[:, places] * torch.stack(far)).sum(dim=0)
    retention = F.mse_loss(readout(run, student, kept, kept), readout(run, teacher, kept, kept))
    wrong = r[batch.partners]
    mismatch = F.mse_loss(readout(run, student, r, wrong), readout(run, teacher, r, wrong))
    retention = retention + w.mismatched * mismatch
    if run.task.contrastive:
        decoupling = decoupling + w.similarity * _cosine_decoupling(run, student, gone, draws)
        mine, theirs = (_cosines(run, model, kept, kept) for model in (student, teacher))
        retention = retention + w.kept_similarity * F.mse_loss(mine, theirs)
    ours, originals = (run.inputs.encode(model, f) for model in (student, teacher))
    drifts = zip(ours, originals, strict=True)
    drift = torch.stack([((a.pooled - b.pooled) ** 2).sum(1).mean() for a, b in drifts]).sum()
    deleted, earlier = (made.push[places] * decoupling).split([len(f), len(batch.forgotten)])
    return {
        "decoupling": w.alpha * (deleted.mean() + earlier.sum() / len(f)),
        "multimodal_retention": w.beta * retention,
        "unimodal_retention": w.gamma * drift,
    }


def _cosines(run: Unlearning, model: PairModel, items_of: Tensor, texts_of: Tensor) -> Tensor:
    item = run.inputs.encode(model, items_of)[0]
    text = run.inputs.encode(model, texts_of)[1]
    items, texts = model.project(item, text)
    return items @ texts.T


def _cosine_decoupling(
    run: Unlearning, student: PairModel, f: Tensor, draws: list[tuple[Tensor, Tensor]]
) -> Tensor:
    mine = _cosines(run, student, f, f).diagonal()
    far = [(mine - _cosines(run, run.teacher, p, q).diagonal()).square() for p, q in draws]
    return torch.stack(far).mean(dim=0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("unrelated", ["dataset", "anchored"])
def test_the_fast_loss_is_the_loss_of_a_plain_loop(
    unlearn: Unlearn, family: str, unrelated: str
) -> None:
    run = unlearn(family, "multidelete", unrelated=unrelated, mismatched=0.5, draws=3, batch_size=4)
    made = objective(run, moved(run))
    batch = made.batches(1, torch.Generator().manual_seed(2))[0]
    fast = made.loss(batch)
    run.inputs._frozen.clear()
    with torch.no_grad():
        expected = plain(run, made, batch)
    for name, value in expected.items():
        torch.testing.assert_close(fast[name].detach(), value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_only_decoupling_is_there_before_the_student_moves(unlearn: Unlearn, family: str) -> None:
    made = objective(unlearn(family, "multidelete"))
    terms = made.loss(made.batches(0, torch.Generator().manual_seed(0))[0])
    assert terms["decoupling"] > 0.001
    assert terms["multimodal_retention"] < 1e-6
    assert terms["unimodal_retention"] < 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_unrelated_pairs_are_never_true_and_never_forgotten(unlearn: Unlearn, family: str) -> None:
    run = unlearn(family, "multidelete", draws=16)
    made = objective(run)
    for seed in range(5):
        items_of, texts_of = unrelated(run, made, torch.Generator().manual_seed(seed))
        assert not made.truths.true(items_of, texts_of).any()
        assert not torch.isin(torch.cat([items_of, texts_of]), run.forgotten).any()
        assert set(torch.cat([items_of, texts_of]).tolist()) <= set(
            torch.cat([run.retain, run.forget]).tolist()
        )


def test_anchored_pairs_keep_the_deleted_item(unlearn: Unlearn) -> None:
    run = unlearn("albef", "multidelete", unrelated="anchored", draws=4)
    items_of, _ = unrelated(run, objective(run), torch.Generator().manual_seed(0))
    assert items_of.view(4, -1)[:, : len(run.forget)].tolist() == [run.forget.tolist()] * 4


def test_an_epoch_covers_the_deleted_pairs_once_and_never_retains_one(unlearn: Unlearn) -> None:
    run = unlearn("gcn_bert", "multidelete", batch_size=4, **PLAIN)
    made = objective(run)
    batches = made.batches(0, torch.Generator().manual_seed(0))
    assert sorted(torch.cat([b.forget for b in batches]).tolist()) == run.forget.tolist()
    retained = set(torch.cat([b.retain for b in batches]).tolist())
    assert retained <= set(run.retain.tolist())
    earlier = torch.cat([b.forgotten for b in batches]).tolist()
    assert sorted(earlier) == run.forgotten.tolist()
    assert all(torch.equal(run.forget[b.places], b.forget) for b in batches)


def test_retained_pairs_are_sampled_afresh_in_each_epoch(unlearn: Unlearn) -> None:
    made = objective(unlearn("gcn_bert", "multidelete", **PLAIN))
    drawn = [
        made.batches(epoch, torch.Generator().manual_seed(epoch))[0].retain.tolist()
        for epoch in range(3)
    ]
    assert len({tuple(rows) for rows in drawn}) == 3
    # As many as are deleted.
    assert {len(rows) for rows in drawn} == {6}


@pytest.mark.parametrize(("most", "taken"), [(14, 14), (8, 12)])  # an epoch takes 6
def test_a_large_data_set_is_read_in_part(
    unlearn: Unlearn, monkeypatch: pytest.MonkeyPatch, most: int, taken: int
) -> None:
    monkeypatch.setattr(multidelete, "RETAINED", most)
    run = unlearn("gcn_bert", "multidelete", **PLAIN)
    made = objective(run)
    assert len(run.retain) > taken
    batches = [made.batches(n, torch.Generator().manual_seed(n))[0] for n in range(20)]
    drawn = set(torch.cat([batch.retain for batch in batches]).tolist())
    assert len(drawn) == taken
    assert drawn <= set(run.retain.tolist())
    for batch in batches:
        made.loss(batch)
    asked = set(made.teacher._known.nonzero()[:, 0].tolist())
    assert asked - set(run.forgotten.tolist()) == drawn


def test_wrong_texts_of_retained_items_are_wrong_or_their_own(unlearn: Unlearn) -> None:
    run = unlearn("albef", "multidelete")
    made = objective(run)
    for seed in range(10):
        batch = made.batches(0, torch.Generator().manual_seed(seed))[0]
        others = batch.partners != torch.arange(len(batch.partners))
        items_of, texts_of = batch.retain[others], batch.retain[batch.partners][others]
        assert not made.truths.true(items_of, texts_of).any()
        assert others.float().mean() > 0.5


def test_few_deleted_pairs_still_get_the_least_steps(unlearn: Unlearn) -> None:
    few = objective(unlearn("gcn_bert", "multidelete", least_steps=50, epochs=2)).schedule()
    assert few.epochs == 50
    many = unlearn("gcn_bert", "multidelete", least_steps=50, epochs=40, batch_size=2)
    assert objective(many).schedule().epochs == 40


def run_with(unlearn: Unlearn, family: str, **params: object) -> tuple[Unlearning, PairModel]:
    """Unlearn for long at an even rate, with weights that defaults do not change; take the last epoch."""
    given: dict[str, object] = {
        "alpha": 1,
        "beta": 5,
        "gamma": 1,
        "retain_ratio": 1,
        "epochs": 60,
        "least_steps": 0,
        "least_retained": 12,
        "learning_rate": 2e-3,
        "target": 0,
        "keep": "last",
    }
    run = unlearn(family, "multidelete", **(given | params))
    made = objective(run)
    run.fit(made.student, made, replace(made.schedule(), decay=False))
    return run, made.student.eval()


def _far(run: Unlearning, model: PairModel, rows: Tensor) -> float:
    """How far readouts of a model are from the teacher's, as a mean squared error."""
    with torch.no_grad():
        mine, theirs = (readout(run, m, rows, rows) for m in (model, run.teacher))
    return float(F.mse_loss(mine, theirs))


def _drift(run: Unlearning, model: PairModel) -> float:
    with torch.no_grad():
        mine, theirs = (run.inputs.encode(m, run.forget) for m in (model, run.teacher))
    return sum(
        float(((a.pooled - b.pooled) ** 2).sum(1).mean()) for a, b in zip(mine, theirs, strict=True)
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_deleted_pairs_score_lower_than_before_and_than_retained_ones(
    unlearn: Unlearn, scores: Scores, family: str
) -> None:
    run, student = run_with(unlearn, family, alpha=10, learning_rate=5e-3)
    before = scores(run, run.teacher, run.forget).mean()
    after = scores(run, student, run.forget).mean()
    assert after < before - 0.1
    # An even chance of either class is as far as a pair goes that nothing is to be said of.
    assert after < scores(run, student, run.retain).mean() - 0.08


@pytest.mark.parametrize("family", FAMILIES)
def test_without_decoupling_nothing_is_forgotten(
    unlearn: Unlearn, scores: Scores, family: str
) -> None:
    # A small rate: without decoupling the loss starts at its minimum, where Adam's steps are noise.
    run, ablated = run_with(unlearn, family, alpha=0, learning_rate=3e-4)
    run, whole = run_with(unlearn, family, alpha=5, learning_rate=3e-4)
    before = float(scores(run, run.teacher, run.forget).mean())
    assert float(scores(run, ablated, run.forget).mean()) == pytest.approx(before, abs=0.02)
    assert float(scores(run, whole, run.forget).mean()) < before - 0.04


@pytest.mark.parametrize("family", FAMILIES)
def test_without_multimodal_retention_retained_pairs_move_more(
    unlearn: Unlearn, family: str
) -> None:
    run, whole = run_with(unlearn, family)
    run, ablated = run_with(unlearn, family, beta=0)
    assert _far(run, ablated, run.retain) > 1.5 * _far(run, whole, run.retain)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_unimodal_retention_embeddings_drift_more(unlearn: Unlearn, family: str) -> None:
    run, whole = run_with(unlearn, family)
    run, ablated = run_with(unlearn, family, gamma=0)
    assert _drift(run, ablated) > 1.5 * _drift(run, whole)


def test_the_last_epoch_is_kept_where_it_is_asked_for(unlearn: Unlearn) -> None:
    ever_worse = {"beta": 0, "alpha": 10, "target": 50, "epochs": 10}
    best, _ = run_with(unlearn, "gcn_bert", **ever_worse, keep="best")
    last, _ = run_with(unlearn, "gcn_bert", **ever_worse)
    assert best.reports[-1].best_epoch < 9
    assert last.reports[-1].best_epoch == 9


def test_how_much_too_much_was_lost_is_told_whichever_epoch_is_kept(unlearn: Unlearn) -> None:
    given = {"beta": 0, "held_out": 0, "learning_rate": 0.1, "epochs": 1, "least_steps": 0}
    best, last = (unlearn("gcn_bert", "multidelete", **given, keep=k) for k in ("best", "last"))
    for run in (best, last):
        methods.get("multidelete").run(run)
    [excess] = best.measured
    assert excess.value > 0
    assert best.reports[0].best_score < 0
    assert last.measured == best.measured  # there was one epoch


@pytest.mark.parametrize("family", FAMILIES)
def test_earlier_forgotten_pairs_stay_where_the_teacher_has_them(
    unlearn: Unlearn, family: str
) -> None:
    run, student = run_with(unlearn, family)
    assert _far(run, student, run.forgotten) < _far(run, student, run.forget) / 2


@pytest.mark.parametrize("family", FAMILIES)
def test_fusion_only_leaves_both_encoders_alone(unlearn: Unlearn, family: str) -> None:
    run = unlearn(family, "multidelete", update="fusion")
    made = objective(run)
    batch = made.batches(0, torch.Generator().manual_seed(0))[0]
    assert set(made.loss(batch)) == {"decoupling", "multimodal_retention"}
    run.fit(made.student, made, Schedule(epochs=2, learning_rate=1e-2))
    before, after = run.teacher.parts(), made.student.parts()
    parts: dict[Part, bool] = {"item": False, "text": False, "fusion": True}
    for part, changed in parts.items():
        pairs = zip(before[part], after[part], strict=True)
        same = all(torch.equal(old, new) for (_, old), (_, new) in pairs)
        assert same is not changed, part


def test_cancelling_stops_while_the_teacher_works(unlearn: Unlearn) -> None:
    class Stop:
        def check(self) -> None:
            raise InterruptedError

    run = unlearn("gcn_bert", "multidelete")
    run.monitor = Monitor(control=Stop())
    with pytest.raises(InterruptedError):
        objective(run)
