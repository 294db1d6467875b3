import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
from engine.memory import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "kept":
    assert keep_freed_memory()

def blocks():
    for _ in range(10):
        torch.zeros(2**24)  # 64 MiB

blocks()
before = faults()
blocks()
print(faults() - before)
"""


def _faults(kept: str) -> int:
    command = [sys.executable, "-c", SCRIPT, kept]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing happens")
def test_a_large_block_that_was_freed_is_used_again_without_fresh_pages() -> None:
    fresh = _faults("given back")
    assert fresh > 10 * 16  # at least every huge page of 2 MiB, of each of ten blocks
    assert _faults("kept") < fresh / 10
