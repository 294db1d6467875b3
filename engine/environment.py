"""Where a run ran: versions and hardware, without names of hosts, users or folders."""

import platform
import resource
import sys
from importlib.metadata import PackageNotFoundError, version

import torch

from engine.processes import count

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "torch-geometric",
    "scikit-learn",
    "numpy",
    "lethe",
)


def environment(device: str, threads: int) -> dict[str, str]:
    """Return versions, processor and device: what a repetition to the bit depends on."""
    found = {name: _version(name) for name in PACKAGES}
    found["python"] = platform.python_version()
    found["platform"] = f"{platform.system()} {platform.machine()}"
    found["cpu_capability"] = torch.backends.cpu.get_cpu_capability()
    found["device"] = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    found["threads"] = str(threads)
    found["processes"] = str(count())
    return found


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
