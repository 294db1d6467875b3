"""The three losses of MultiDelete (paper, section 2) as functions of tensors.

Distances are mean squared errors. B pairs, r readout size, d embedding size.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def decoupling_loss(student: Tensor, unrelated: Tensor) -> Tensor:
    """L_MD of each pair: the student's readout of it goes to the teacher's of an unrelated pair.

    Args:
        student: R(f'(I_i, T_i)) of pairs of D_f, ``(..., B, r)``.
        unrelated: R(f(I_p, T_q)) of unrelated pairs, ``(..., B, r)``.

    Returns:
        ``(..., B)``, means over dimensions.
    """
    return (student - unrelated).square().mean(dim=-1)


def similarity_decoupling_loss(student: Tensor, unrelated: Tensor) -> Tensor:
    """L_MD of each pair on the similarity that ranks, for retrieval.

    Args:
        student: cos(f'_V(I_i), f'_L(T_i)) of pairs of D_f, ``(B,)``.
        unrelated: cos(f_V(I_p), f_L(T_q)) of unrelated pairs, ``(B,)``.

    Returns:
        ``(B,)``.
    """
    return (student - unrelated).square()


def multimodal_retention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """L_MKR: readouts of retained pairs stay where they are.

    Args:
        student: R(f'(I_r, T_r)), ``(B, r)``.
        teacher: R(f(I_r, T_r)), ``(B, r)``.

    Returns:
        Scalar, mean over pairs and dimensions.
    """
    return F.mse_loss(student, teacher)


def similarity_retention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """L_MKR on the similarities that rank, for retrieval.

    Args:
        student: cosines of every item with every text of a batch of D_r, ``(B, B)``.
        teacher: the same of the teacher, ``(B, B)``.

    Returns:
        Scalar, mean over all combinations.
    """
    return F.mse_loss(student, teacher)


def unimodal_retention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """L_UKR: both unimodal embeddings of deleted pairs stay where they are.

    Args:
        student: [f'_V(I_i); f'_L(T_i)], ``(B, d)``.
        teacher: [f_V(I_i); f_L(T_i)], ``(B, d)``.

    Returns:
        Scalar, mean over pairs and *sum* over dimensions: as a mean over hundreds of dimensions
        it is too weak to hold anything.
    """
    return torch.mean(torch.sum((student - teacher) ** 2, dim=1))
