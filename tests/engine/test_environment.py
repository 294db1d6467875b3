import platform
import socket

import numpy as np
import pytest
import torch

from engine.environment import (
    devices,
    environment,
    peak_memory_bytes,
    precision_on,
    require_device,
)
from engine.errors import DeviceUnavailable, InvalidSpec
from engine.spec import Precision


def test_versions_and_hardware_are_told_but_no_names() -> None:
    found = environment("cpu", 3, "auto")
    assert found["numpy"] == np.__version__
    assert found["python"] == platform.python_version()
    assert (found["device"], found["threads"]) == ("cpu", "3")
    assert (found["processes"], found["precision"]) == ("1", "fp32")
    assert socket.gethostname() not in found.values()


@pytest.mark.parametrize(
    ("device", "asked", "there", "found"),
    [
        ("cpu", "auto", True, "fp32"),
        ("cuda", "auto", True, "bf16"),
        ("cuda", "auto", False, "fp32"),
        ("cuda", "fp32", True, "fp32"),
        ("cpu", "bf16", True, "bf16"),
    ],
)
def test_the_precision_is_what_is_asked_for_and_by_itself_what_suits_the_device(
    monkeypatch: pytest.MonkeyPatch, device: str, asked: Precision, there: bool, found: str
) -> None:
    monkeypatch.setattr("engine.environment.has_bf16", lambda _: there)
    assert precision_on(device, asked) == found


def test_a_precision_that_the_device_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.environment.has_bf16", lambda _: False)
    with pytest.raises(InvalidSpec, match="the device cpu has no bf16 arithmetic; use auto"):
        precision_on("cpu", "bf16")


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:x", "tpu", "meta", "auto", ""])
def test_a_device_that_is_not_here_is_refused_with_those_that_are(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceUnavailable, match=f"and '{device}' came; give one of cpu$"):
        require_device(device)


def test_a_device_that_is_here_can_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices() == ["cpu", "cuda:0", "cuda:1"]
    for device in [*devices(), "cuda"]:
        require_device(device)
    with pytest.raises(DeviceUnavailable, match=r"'cuda:2' came; give one of cpu, cuda:0, cuda:1$"):
        require_device("cuda:2")


def test_peak_memory_covers_what_is_held() -> None:
    before = peak_memory_bytes("cpu")
    held = np.ones(60_000_000 // 8)
    assert peak_memory_bytes("cpu") >= before
    assert peak_memory_bytes("cpu") > held.nbytes
