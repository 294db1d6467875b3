import pytest
import torch

from engine.methods.losses import (
    decoupling_loss,
    multimodal_retention_loss,
    similarity_decoupling_loss,
    similarity_retention_loss,
    unimodal_retention_loss,
)

STUDENT = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
TEACHER = torch.tensor([[0.0, 4.0], [3.0, -1.0]])


def test_decoupling_is_each_pairs_mean_squared_error_to_the_unrelated_readout() -> None:
    # Squares 1 and 4, then 9 and 0; means over 2.
    assert decoupling_loss(STUDENT, TEACHER).tolist() == [2.5, 4.5]


def test_decoupling_over_two_draws_is_the_mean_of_both() -> None:
    both = torch.stack([TEACHER, torch.zeros(2, 2)])
    # The second draw: squares 1 and 4, then 0 and 1.
    found = decoupling_loss(STUDENT.expand_as(both), both)
    assert found.mean(dim=0).tolist() == [2.5, 2.5]


def test_decoupling_pulls_the_student_to_the_unrelated_readout() -> None:
    student = STUDENT.clone().requires_grad_()
    decoupling_loss(student, TEACHER).mean().backward()
    # d/ds mean (s - t)^2 = 2 (s - t) / 4
    torch.testing.assert_close(student.grad, torch.tensor([[0.5, -1.0], [-1.5, 0.0]]))


def test_similarity_decoupling_is_each_pairs_squared_error_of_the_cosine() -> None:
    cosines, unrelated = torch.tensor([0.9, 0.5]), torch.tensor([0.1, 0.7])
    torch.testing.assert_close(
        similarity_decoupling_loss(cosines, unrelated), torch.tensor([0.64, 0.04])
    )


def test_multimodal_retention_is_the_mean_squared_error_to_the_same_pairs() -> None:
    assert multimodal_retention_loss(STUDENT, TEACHER).item() == 3.5
    assert multimodal_retention_loss(TEACHER, TEACHER).item() == 0


def test_similarity_retention_counts_every_combination() -> None:
    student = torch.tensor([[1.0, 0.2], [0.0, 1.0]])
    teacher = torch.tensor([[1.0, 0.0], [0.4, 0.0]])
    # (0 + 0.04 + 0.16 + 1) / 4
    assert similarity_retention_loss(student, teacher).item() == pytest.approx(0.3)


def test_unimodal_retention_sums_over_dimensions_and_averages_over_pairs() -> None:
    # ((1 + 4) + (9 + 0)) / 2
    assert unimodal_retention_loss(STUDENT, TEACHER).item() == 7
