"""Saved state of a training: what a new attempt needs to go on after the last saved epoch.

One safetensors file a phase, replaced atomically; nothing is ever unpickled.
"""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from engine.errors import StorageFull
from engine.monitor import Monitor

FORMAT = "1"


@dataclass
class TrainingState:
    """Counters of a training loop.

    Attributes:
        epoch: epochs that are complete.
        steps: of the optimiser.
        samples: rows that they saw.
        best_epoch: of the best validation, or -1.
        best_score: of it.
        seconds: what the loop took for this, over all attempts; in memory, that of earlier attempts.
    """

    epoch: int = 0
    steps: int = 0
    samples: int = 0
    best_epoch: int = -1
    best_score: float = float("-inf")
    seconds: float = 0.0


class BestWeights:
    """The weights of the best validation so far: only what training can change."""

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] = {}

    def keep(self, model: nn.Module) -> None:
        """Remember the present weights."""
        self.weights = {name: tensor.detach().clone() for name, tensor in _changing(model)}

    def restore(self, model: nn.Module) -> None:
        """Put the remembered weights into the model; without any, leave it as it is."""
        _load(model, self.weights)


@dataclass
class StateFile:
    """The state file of one phase of one run."""

    path: Path
    fingerprint: str

    @classmethod
    def of(cls, monitor: Monitor, phase: str, seed: int) -> "StateFile | None":
        """Return the state file that a monitor asks for, or None."""
        if monitor.state is None:
            return None
        monitor.state.mkdir(parents=True, exist_ok=True)
        path = monitor.state / f"{phase}.safetensors"
        return cls(path, f"{FORMAT}:{monitor.fingerprint}:{phase}:{seed}")

    def save(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        best: BestWeights,
        state: TrainingState,
    ) -> None:
        """Write everything to a neighbour, flush it to the disk, and rename it into place.

        Raises:
            StorageFull: there is no room; the half-written file is removed.
        """
        tensors = {f"model.{name}": tensor for name, tensor in _changing(model)}
        tensors |= {f"best.{name}": tensor for name, tensor in best.weights.items()}
        tensors |= _optimizer_tensors(optimizer)
        tensors = {name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()}
        metadata = {"fingerprint": self.fingerprint, "state": json.dumps(asdict(state))}
        temporary = self.path.with_suffix(".tmp")
        with _removing_on_failure(temporary):
            save_file(tensors, temporary, metadata=metadata)
            _flush(temporary)
            temporary.replace(self.path)
        _flush(self.path.parent)

    def restore(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        best: BestWeights,
        state: TrainingState,
    ) -> bool:
        """Bring all four to the saved moment; return False when there is none for this run.

        A file of another run, or one that is damaged, counts as none: training starts again.
        """
        saved = self._read()
        if saved is None:
            return False
        tensors, counters = saved
        _load(model, _below(tensors, "model."))
        best.weights = _below(tensors, "best.")
        _load_optimizer(optimizer, _below(tensors, "optimizer."))
        for name, value in counters.items():
            setattr(state, name, value)
        return True

    def _read(self) -> tuple[dict[str, Tensor], dict[str, float]] | None:
        if not self.path.is_file():
            return None
        try:
            with safe_open(self.path, framework="pt") as file:
                metadata = file.metadata() or {}
                if metadata.get("fingerprint") != self.fingerprint:
                    return None
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError):
            return None
        return tensors, json.loads(metadata["state"])


@contextmanager
def _removing_on_failure(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        path.unlink(missing_ok=True)
        # safetensors reports the system's error only in words.
        number = getattr(error, "errno", None)
        if number == errno.ENOSPC or f"os error {errno.ENOSPC}" in str(error):
            raise StorageFull(
                f"the training state needs room in {path.parent}, and the disk is full; "
                "free space there and start the run again: it goes on after the last saved epoch"
            ) from error
        raise


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _changing(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield what training changes: parameters with gradients, and buffers of running statistics."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            yield name, parameter
    for name, buffer in model.named_buffers():
        if "running_" in name or "num_batches_tracked" in name:
            yield name, buffer


def _load(model: nn.Module, weights: dict[str, Tensor]) -> None:
    present = dict(_changing(model))
    with torch.no_grad():
        for name, tensor in weights.items():
            present[name].copy_(tensor)


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{index}.{key}": tensor
        for index, entries in state.items()
        for key, tensor in entries.items()
    }


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
