"""Whether trainers find what they need: their libraries, and what LETHE_DEVICE and LETHE_PRECISION name.

Asked in a process of its own, since neither the service nor a worker loads torch.
"""

import subprocess
import sys
from importlib.util import find_spec

from app.core.settings_errors import SettingsError, StartError

_COUNT = "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"
_BF16 = (
    "import sys, torch; from engine.environment import has_bf16; auto = torch.cuda.is_available(); "
    "print(int(has_bf16(sys.argv[1].replace('auto', 'cuda' if auto else 'cpu'))))"
)
_SECONDS = 120
_CHOICE = "Set LETHE_DEVICE to auto or cpu"


def require_device(device: str) -> None:
    """Refuse a device that no trainer would find; only a GPU is looked for.

    Args:
        device: auto, cpu, cuda or cuda:N.

    Raises:
        SettingsError: there is no such GPU.
        StartError: the libraries of the engine are not installed.
    """
    if find_spec("torch") is None:
        raise StartError(
            "The libraries that a worker trains with are not installed: torch is not there. Install "
            "Lethe with its extra `engine`: pip install 'lethe[engine]'."
        )
    if not device.startswith("cuda"):
        return
    wanted = int(device.partition(":")[2] or 0)
    found, problem = _gpus()
    if found == 0:
        raise SettingsError(
            f"LETHE_DEVICE is {device}, and torch finds no GPU here{problem}. {_CHOICE}; or give the machine, or "
            "the container (--gpus all), its GPU and driver, and install a build of torch for CUDA."
        )
    if wanted >= found:
        there = "cuda:0 alone" if found == 1 else f"cuda:0 to cuda:{found - 1}"
        raise SettingsError(f"LETHE_DEVICE is {device}, and torch finds {there} here. {_CHOICE}.")


def require_precision(device: str, precision: str) -> None:
    """Refuse bf16 on a device that has none; call `require_device` first.

    Raises:
        SettingsError: the device has no bf16 arithmetic.
    """
    if precision != "bf16":
        return
    found, problem = _number(_BF16, device)
    if not found:
        raise SettingsError(
            f"LETHE_PRECISION is bf16, and the device {device} has no bf16 arithmetic here{problem}. Set "
            "LETHE_PRECISION to auto or fp32."
        )


def _gpus() -> tuple[int, str]:
    """Return how many GPUs torch can use, and why it cannot say in words."""
    return _number(_COUNT)


def _number(code: str, *arguments: str) -> tuple[int, str]:
    """Return the number that a process with torch prints; 0 and why in words, if it prints none."""
    command = [sys.executable, "-P", "-c", code, *arguments]
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired:  # a driver that hangs
        return 0, f" (it did not answer within {_SECONDS} s)"
    said = done.stdout.split()
    if said and done.returncode == 0:
        return int(said[-1]), ""
    last = done.stderr.strip().rpartition("\n")[2]
    return 0, f" ({last or f'it ended with status {done.returncode}'})"
