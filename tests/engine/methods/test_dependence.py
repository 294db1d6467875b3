import pytest
import torch
from torch import Tensor

from engine.methods.dependence import codec, select

Y = torch.tensor([1.0, 2.0, 3.0, 4.0]).double()


def column(*values: float) -> Tensor:
    return torch.tensor(values).double()[:, None]


def test_unconditional_dependence_of_four_points_by_hand() -> None:
    # Nearest of 0, 1, 3, 7 are places 1, 0, 1, 2, so min(R_i, R_M(i)) = 1, 1, 2, 3 and L = 4, 3,
    # 2, 1. Above: 4 * (1, 1, 2, 3) - (16, 9, 4, 1) = -12 - 5 + 4 + 11 = -2.
    # Below: L (n - L) = 0 + 3 + 4 + 3 = 10.
    assert codec(Y, column(0, 1, 3, 7)) == pytest.approx(-0.2)


def test_conditional_dependence_of_four_points_by_hand() -> None:
    # Nearest of 0, 5, 1, 7 are places 2, 3, 0, 1: min(R_i, R_N(i)) = 1, 2, 1, 2. Together with
    # 0, 10, 30, 70, which outweighs them, they are 1, 0, 1, 2: min(R_i, R_M(i)) = 1, 1, 2, 3.
    # Above: 7 - 6 = 1. Below: 10 - 6 = 4.
    assert codec(Y, column(0, 10, 30, 70), column(0, 5, 1, 7)) == pytest.approx(0.25)


def test_a_function_of_z_is_near_one_and_noise_near_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    z, other = torch.randn(2, 500, 1, generator=generator).double()
    y = (3 * z[:, 0]).sin()
    assert codec(y, z) > 0.9
    assert abs(codec(y, other)) < 0.15
    # Given z there is nothing that the other could add.
    assert codec(y, other, z) < 0.1


def test_the_second_of_two_causes_counts_only_with_the_first() -> None:
    generator = torch.Generator().manual_seed(0)
    z, other = torch.rand(2, 500, 1, generator=generator).double()
    y = ((z + other) % 1)[:, 0]
    assert abs(codec(y, z)) < 0.15
    assert codec(y, z, other) > 0.7


def test_a_constant_depends_on_nothing() -> None:
    assert codec(torch.ones(4).double(), column(0, 1, 3, 7)) == 0
    assert codec(torch.ones(4).double(), column(0, 1, 3, 7), column(0, 5, 1, 7)) == 0


def test_columns_that_matter_are_chosen_and_no_others() -> None:
    columns = torch.randn(400, 6, generator=torch.Generator().manual_seed(1)).double()
    y = 2 * columns[:, 4] + columns[:, 1]
    assert select(y, columns, most=6)[:2] == [4, 1]
    assert select(y, columns, most=1) == [4]


def test_one_column_is_chosen_even_when_none_says_anything() -> None:
    columns = torch.randn(50, 3, generator=torch.Generator().manual_seed(1)).double()
    y = torch.randn(50, generator=torch.Generator().manual_seed(2)).double()
    assert len(select(y, columns, most=3)) >= 1
    assert select(y, columns[:, :0], most=3) == []
