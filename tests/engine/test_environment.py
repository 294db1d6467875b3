import platform
import socket

import numpy as np

from engine.environment import environment, peak_memory_bytes


def test_versions_and_hardware_are_told_but_no_names() -> None:
    found = environment("cpu", 3)
    assert found["numpy"] == np.__version__
    assert found["python"] == platform.python_version()
    assert (found["device"], found["threads"]) == ("cpu", "3")
    assert found["processes"] == "1"
    assert socket.gethostname() not in found.values()


def test_peak_memory_covers_what_is_held() -> None:
    before = peak_memory_bytes("cpu")
    held = np.ones(60_000_000 // 8)
    assert peak_memory_bytes("cpu") >= before
    assert peak_memory_bytes("cpu") > held.nbytes
