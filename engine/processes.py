"""The processes that do one run together, as ``torchrun`` or ``accelerate launch`` start them.

Every process does the whole run with the same random draws, and so takes every decision alike;
`engine.shares` says what is divided among them. The first one, the *main* process, alone reports
progress and writes. Without a launcher there is one process, and nothing here does anything.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from engine.errors import Cancelled, InvalidSpec, ProcessLost
from engine.monitor import Control


def count() -> int:
    """Return how many processes do this run."""
    return dist.get_world_size() if _joined() else 1


def number() -> int:
    """Return which of them this one is, from 0."""
    return dist.get_rank() if _joined() else 0


def is_main() -> bool:
    """Return whether this process reports and writes."""
    return number() == 0


def _joined() -> bool:
    return dist.is_available() and dist.is_initialized()


@contextmanager
def joined(device: str) -> Iterator[None]:
    """Within the context, belong to the processes that the launcher started.

    All end together: the context is left when every process has come to its end. One that fails
    leaves at once, and the others fail at their next exchange with it.

    Args:
        device: of the run. With ``cuda`` each process takes the GPU of its number on its machine.

    Raises:
        InvalidSpec: the device names one GPU, or there are fewer GPUs than processes, or the
            environment is not a launcher's.
        ProcessLost: another process ended.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    try:
        dist.init_process_group(_backend(device))
    except ValueError as error:
        raise InvalidSpec(
            f"WORLD_SIZE is set as for several processes, and: {error}; start them by torchrun or "
            "accelerate launch, or unset it"
        ) from error
    try:
        yield
        highest(0)
    finally:
        dist.destroy_process_group()


def _backend(device: str) -> str:
    if not device.startswith("cuda"):
        return "gloo"
    if device != "cuda":
        raise InvalidSpec(
            f"device is {device!r}, and each of several processes takes a GPU of its own; say cuda"
        )
    own, present = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if own >= present:
        raise InvalidSpec(
            f"process {own} of this machine needs a GPU of its own, and there are {present}; "
            "start as many processes as there are GPUs"
        )
    torch.cuda.set_device(own)
    return "cpu:gloo,cuda:nccl"  # small decisions are exchanged on the CPU, without waiting for it


def summed(tensor: Tensor) -> Tensor:
    """Add up ``tensor``, in place, over all processes, and return it."""
    return _exchanged(tensor, dist.ReduceOp.SUM)


def highest(value: int) -> int:
    """Return the highest ``value`` of any process."""
    return int(_exchanged(torch.tensor(value), dist.ReduceOp.MAX))


def from_main(value: float) -> float:
    """Return the main process's ``value``: a decision is taken once, however others round."""
    if count() == 1:
        return value
    own = torch.tensor(value if is_main() else 0.0, dtype=torch.float64)
    return float(summed(own))


def agree(value: int, what: str, place: Path) -> None:
    """Check that every process found the same ``value`` at ``place``.

    Raises:
        InvalidSpec: this one did not find what the main process did.
    """
    expected = int(from_main(value))
    if value != expected:
        raise InvalidSpec(
            f"process {number()} found {value} {what} in {place.name}, and the main process "
            f"{expected}; give a folder that all processes see"
        )


def _exchanged(tensor: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
    if count() > 1:
        try:
            dist.all_reduce(tensor, operation)
        except RuntimeError as error:
            raise ProcessLost(
                "another process of this run ended; its own message says why"
            ) from error
    return tensor


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Give every process the mean of all processes' gradients, which is that of the whole batch.

    A parameter that none has a gradient for keeps none: the optimiser leaves such weights alone.
    """
    if count() == 1:
        return
    own = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    used = own[0].new_tensor([p.grad is not None for p in parameters])
    total = summed(torch.cat([*(gradient.flatten() for gradient in own), used]))
    *means, uses = (total / count()).split([*(p.numel() for p in parameters), len(used)])
    for parameter, mean, use in zip(parameters, means, uses.tolist(), strict=True):
        parameter.grad = mean.view_as(parameter).to(parameter.dtype) if use else None


@dataclass
class Together:
    """A control that stops all processes at the same check when one of them is to stop.

    Attributes:
        control: of this process.
    """

    control: Control | None

    def check(self) -> None:
        """See `Control.check`; every process must come to the same checks."""
        asked: Cancelled | None = None
        try:
            if self.control is not None:
                self.control.check()
        except Cancelled as error:
            asked = error
        if highest(int(asked is not None)):
            raise asked or Cancelled("another process of this run was asked to end")
