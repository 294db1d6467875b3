"""Where a run ran: versions and hardware, without names of hosts, users or folders."""

import platform
import resource
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import torch

from engine.errors import DeviceUnavailable, InvalidSpec
from engine.processes import count
from engine.spec import Precision

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "torch-geometric",
    "scikit-learn",
    "numpy",
    "lethe",
)


def environment(device: str, threads: int, precision: Precision) -> dict[str, str]:
    """Return versions, processor, device and precision: what a repetition to the bit depends on."""
    found = {name: _version(name) for name in PACKAGES}
    found["python"] = platform.python_version()
    found["platform"] = f"{platform.system()} {platform.machine()}"
    found["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
    found["device"] = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    found["precision"] = precision_on(device, precision)
    found["threads"] = str(threads)
    found["processes"] = str(count())
    return found


def devices() -> list[str]:
    """Return the processor and every CUDA GPU that torch can use here."""
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return ["cpu", *(f"cuda:{number}" for number in range(gpus))]


def is_usable(device: str) -> bool:
    """Return whether torch can use a device here."""
    try:
        found = torch.device(device)
        if found.type == "cuda":  # named, not tried: a number on it would take memory of the GPU
            return f"cuda:{found.index or 0}" in devices()
        torch.zeros(1, device=found).item()
    except (RuntimeError, AssertionError, ImportError):  # torch has one for each kind of device
        return False
    return True


def require_device(device: str) -> None:
    """Refuse a device that a run could not use here.

    Raises:
        DeviceUnavailable: torch cannot use it.
    """
    if not is_usable(device):
        raise DeviceUnavailable(
            f"a device that torch can use here was expected, and {device!r} came; give one of "
            f"{', '.join(devices())}"
        )


def has_bf16(device: str | torch.device) -> bool:
    """Return whether a device computes in bf16; where it does not, autocast would only be slow."""
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 - no public name


def precision_on(device: str | torch.device, asked: Precision) -> Literal["fp32", "bf16"]:
    """Return what a training's steps are in.

    Raises:
        InvalidSpec: bf16 is asked for, and the device has none.
    """
    kind = torch.device(device).type
    if asked == "auto":
        return "bf16" if kind == "cuda" and has_bf16(device) else "fp32"
    if asked == "bf16" and not has_bf16(device):
        raise InvalidSpec(
            f"the precision bf16 was asked for, and the device {kind} has no bf16 arithmetic; use "
            "auto, or another device"
        )
    return asked


def peak_memory_bytes(device: str) -> int:
    """Return the highest memory use so far: of the GPU if the run has one, else of the process."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
