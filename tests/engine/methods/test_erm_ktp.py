import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.errors import NotApplicable
from engine.families import Encoding, PairModel, families
from engine.inputs import Inputs
from engine.methods import methods
from engine.methods.erm_ktp import (
    Disentangling,
    ErmKtpParams,
    FeatureMasks,
    MaskedInputs,
    Transfer,
    classes_of,
)
from engine.tasks import TrainingRecipe
from engine.unlearning import Unlearning

Unlearn = Callable[..., Unlearning]
RECIPE = TrainingRecipe(epochs=2, batch_size=12, learning_rate=2e-3)


@pytest.fixture
def masks() -> FeatureMasks:
    """Two classes, two features: (1, 1/2) and (1/4, 1)."""
    made = FeatureMasks(2, 2, seed=0)
    with torch.no_grad():
        made.logits.copy_(torch.tensor([[3.0, -math.log(2)], [3 - math.log(4), 0.0]]))
    return made


def test_the_largest_class_of_a_feature_has_it_whole(masks: FeatureMasks) -> None:
    torch.testing.assert_close(masks.values(), torch.tensor([[1.0, 0.5], [0.25, 1.0]]))


def test_entanglement_by_hand(masks: FeatureMasks) -> None:
    # Density (1 + 1/2 + 1/4 + 1) / 4; overlap of the one pair of classes (1/4 + 1/2) / 2.
    assert masks.entanglement().item() == pytest.approx(0.6875 + 0.375)


def test_features_go_through_the_mask_of_their_class(masks: FeatureMasks) -> None:
    items = Encoding(
        tokens=torch.tensor([[[1.0, 2.0], [4.0, 8.0]], [[1.0, 2.0], [4.0, 8.0]]]),
        mask=torch.ones(2, 2, dtype=torch.bool),
        pooled=torch.tensor([[1.0, 2.0, 4.0, 8.0], [1.0, 2.0, 4.0, 8.0]]),
    )
    masked = masks(items, torch.tensor([1, 0]))
    expected = torch.tensor([[[0.25, 2.0], [1.0, 8.0]], [[1.0, 1.0], [4.0, 4.0]]])
    torch.testing.assert_close(masked.tokens, expected)
    # Two images of a pair stand side by side in what is pooled.
    torch.testing.assert_close(masked.pooled, expected.flatten(1))
    assert masked.mask is items.mask


def test_masks_become_exclusive_when_entanglement_is_all_that_counts() -> None:
    made = FeatureMasks(3, 8, seed=1)
    optimizer = torch.optim.Adam(made.parameters(), lr=0.3)
    for _ in range(100):
        optimizer.zero_grad()
        made.entanglement().backward()
        optimizer.step()
    # Density 1/3 and no overlap are the least that is possible.
    assert made.entanglement().item() == pytest.approx(1 / 3, abs=0.02)


def test_classes_are_labels_and_in_retrieval_forget_and_retain(unlearn: Unlearn) -> None:
    run = unlearn("albef", "erm_ktp", task="nlvr", trained=False)
    assert torch.equal(classes_of(run.task, run.inputs, run.forget), run.inputs.labels)
    run = unlearn("albef", "erm_ktp", trained=False)
    classes = classes_of(run.task, run.inputs, run.forget)
    assert classes.nonzero().flatten().tolist() == run.forget.tolist()


def masked_inputs(run: Unlearning) -> MaskedInputs:
    """Masks of class 0 that let the first half of the features through, of class 1 the other."""
    width = run.inputs.encode_items_of(run.teacher, run.retain[:1]).tokens.shape[-1]
    made = FeatureMasks(2, width, seed=0)
    with torch.no_grad():
        made.logits[0] = torch.where(torch.arange(width) < width // 2, 0.0, -100.0)
        made.logits[1] = -100.0 - made.logits[0]
    return MaskedInputs(run.inputs, made, classes_of(run.task, run.inputs, run.forget))


@pytest.mark.parametrize("task", ["retrieval", "nlvr"])
def test_masked_inputs_are_the_same_pairs_behind_masks(unlearn: Unlearn, task: str) -> None:
    run = unlearn("albef", "erm_ktp", task=task, trained=False)
    masked = masked_inputs(run)
    rows = torch.tensor([0, 1, 9, 10])
    with torch.no_grad():
        items, texts = masked.encode(run.teacher, rows)
        plain, same_texts = run.inputs.encode(run.teacher, rows)
        expected = masked.masks(plain, masked.classes[rows])
    torch.testing.assert_close(items.pooled, expected.pooled)
    torch.testing.assert_close(texts.tokens, same_texts.tokens)
    assert not torch.allclose(items.tokens, plain.tokens)
    assert type(run.inputs) is Inputs
    with run.inputs.freeze(run.teacher):
        assert run.teacher in masked._frozen


def test_one_of_three_batches_goes_through_the_masks(unlearn: Unlearn) -> None:
    run = unlearn("albef", "erm_ktp", task="nlvr", trained=False)
    masked = masked_inputs(run)
    made = Disentangling(run, run.student(), run.inputs, masked, RECIPE, ErmKtpParams())
    # 45 pairs in batches of 12: four batches an epoch.
    flags = [
        [batch.masked for batch in made.batches(epoch, torch.Generator().manual_seed(0))]
        for epoch in range(3)
    ]
    assert [flag for epoch in flags for flag in epoch] == [False, False, True] * 4
    batches = made.batches(0, torch.Generator().manual_seed(0))
    rows = torch.cat([batch.rows for batch in batches]).tolist()
    assert sorted(rows) == sorted([*run.retain.tolist(), *run.forget.tolist()])
    assert set(made.loss(batches[0])) == {"class"}
    terms = made.loss(batches[2])
    assert set(terms) == {"class", "entanglement"}
    torch.testing.assert_close(terms["entanglement"], masked.masks.entanglement())


def test_a_student_like_the_first_model_without_masks_has_nothing_to_learn_from_it(
    unlearn: Unlearn,
) -> None:
    run = unlearn("albef", "erm_ktp", task="nlvr", trained=False)
    masked = masked_inputs(run)
    made = Transfer(run, run.student(), run.inputs, run.teacher, masked, RECIPE, weight=2.0)
    rows = run.retain[:6]
    terms = {name: value.detach() for name, value in made.loss(rows).items()}
    assert set(terms) == {"class", "features", "readouts"}
    known = run.inputs.encode_items_of(run.teacher, rows).pooled
    hidden = known - masked.encode_items_of(run.teacher, rows).pooled
    torch.testing.assert_close(terms["features"], 2 * (hidden**2).mean().detach())
    assert terms["readouts"] > 0
    with torch.no_grad():
        masked.masks.logits.zero_()
    terms = {name: value.detach() for name, value in made.loss(rows).items()}
    assert terms["features"] < 1e-8
    assert terms["readouts"] < 1e-8


def test_the_transfer_sees_retained_pairs_alone(
    unlearn: Unlearn, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = unlearn("albef", "erm_ktp", trained=False, transfer_epochs=1)
    run.recipe = RECIPE
    seen: dict[PairModel, set[int]] = {}
    original = run.task.loss

    def watching(model: PairModel, inputs: Inputs, rows: Tensor) -> dict[str, Tensor]:
        seen.setdefault(model, set()).update(rows.tolist())
        return original(model, inputs, rows)

    monkeypatch.setattr(run.task, "loss", watching)
    student = methods.get("erm_ktp").run(run)
    assert seen.pop(student) <= set(run.retain.tolist())
    [first] = seen.values()
    assert first & set(run.forget.tolist())
    assert [report.epochs for report in run.reports] == [2, 1]


@pytest.mark.parametrize("task", ["retrieval", "nlvr"])
def test_the_result_is_an_ordinary_checkpoint_of_its_family(
    unlearn: Unlearn, tmp_path: Path, task: str
) -> None:
    run = unlearn("albef", "erm_ktp", task=task, trained=False)
    run.recipe = RECIPE
    student = methods.get("erm_ktp").run(run)
    student.save(tmp_path)
    loaded = families.get("albef").load(tmp_path).eval()
    assert type(loaded) is type(student)
    state = loaded.state_dict()
    assert list(state) == list(run.teacher.state_dict())
    assert all(torch.equal(value, state[name]) for name, value in student.state_dict().items())


def test_the_recipe_of_the_original_is_needed(unlearn: Unlearn) -> None:
    run = unlearn("albef", "erm_ktp", trained=False)
    run.recipe = None
    with pytest.raises(NotApplicable, match="names no recipe"):
        methods.get("erm_ktp").run(run)


def test_refusals_say_why() -> None:
    refusal = methods.get("erm_ktp").refusal
    assert "reads graphs" in str(refusal("gcn_bert", "graph_text", "all"))
    assert "use update = all" in str(refusal("albef", "retrieval", "fusion"))
    assert refusal("albef", "retrieval", "all") is None
