from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from engine.families import Encoding, Fused
from engine.methods.teacher import Teacher
from engine.unlearning import Unlearning


def free() -> None:
    """Let the run go on."""


@pytest.mark.parametrize("family", ["albef", "gcn_bert"])
def test_kept_readouts_are_what_the_model_gives(
    unlearn: Callable[..., Unlearning], family: str
) -> None:
    run = unlearn(family, "multidelete")
    rows = torch.tensor([3, 1, 3, 8])
    with run.inputs.freeze(run.teacher):
        found = Teacher(run.teacher, run.inputs, free).readouts(rows)
    with torch.no_grad():
        expected = run.teacher.fuse(*run.inputs.encode(run.teacher, rows)).readout
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_each_true_pair_is_fused_once(
    unlearn: Callable[..., Unlearning], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = unlearn("gcn_bert", "multidelete")
    fused: list[int] = []
    original = run.teacher.fuse

    def counting(item: Encoding, text: Encoding) -> Fused:
        fused.append(len(item.pooled))
        return original(item, text)

    monkeypatch.setattr(run.teacher, "fuse", counting)
    with run.inputs.freeze(run.teacher):
        teacher = Teacher(run.teacher, run.inputs, free)
        teacher.readouts(torch.tensor([0, 1, 1]))
        teacher.readouts(torch.tensor([1, 2]))
        teacher.readouts(torch.tensor([0, 2]))
    assert fused == [2, 1]


def test_combined_takes_items_of_one_pair_and_texts_of_another(
    unlearn: Callable[..., Unlearning],
) -> None:
    run = unlearn("albef", "multidelete")
    items_of, texts_of = torch.tensor([0, 5]), torch.tensor([7, 2])
    with run.inputs.freeze(run.teacher):
        found = Teacher(run.teacher, run.inputs, free).combined(items_of, texts_of)
    item = run.inputs.encode(run.teacher, items_of)[0]
    text = run.inputs.encode(run.teacher, texts_of)[1]
    with torch.no_grad():
        expected = run.teacher.fuse(item, text)
    torch.testing.assert_close(found.readout, expected.readout, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-5)


def test_cosines_are_the_diagonal_of_the_similarities(unlearn: Callable[..., Unlearning]) -> None:
    run = unlearn("albef", "multidelete")
    rows = torch.tensor([0, 5, 9])
    with run.inputs.freeze(run.teacher):
        teacher = Teacher(run.teacher, run.inputs, free)
        cosines: Tensor = teacher.cosines(rows, rows)
        torch.testing.assert_close(cosines, teacher.similarities(rows).diagonal())
    assert (cosines.abs() <= 1 + 1e-5).all()
