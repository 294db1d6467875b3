"""The GPU and the precision that settings name, looked for before any job fails of them."""

import pytest
import torch

from app.core import device
from app.core.settings_errors import SettingsError, StartError
from engine.environment import has_bf16


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(device, "_COUNT", f"print('a warning'); print({request.param})")


@pytest.mark.parametrize("gpus", [2], indirect=True)
def test_a_gpu_that_is_there_is_taken(gpus: None) -> None:
    for name in ("cuda", "cuda:0", "cuda:1"):
        device.require_device(name)
    with pytest.raises(SettingsError, match="cuda:2, and torch finds cuda:0 to cuda:1 here"):
        device.require_device("cuda:2")


@pytest.mark.parametrize("gpus", [0, "1 / 0"], indirect=True)
def test_a_gpu_that_is_not_there_is_refused_with_what_to_do(gpus: None) -> None:
    for name in ("cuda", "cuda:0"):
        with pytest.raises(SettingsError, match=rf"LETHE_DEVICE is {name}, and torch finds no GPU"):
            device.require_device(name)


@pytest.mark.parametrize("gpus", ["1 / 0"], indirect=True)
def test_torch_is_not_asked_where_no_gpu_is_named(gpus: None) -> None:
    device.require_device("auto")
    device.require_device("cpu")


def test_bf16_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_BF16", "import sys; print(int(sys.argv[1] == 'cuda:1'))")
    device.require_precision("cuda:1", "bf16")
    device.require_precision("cpu", "auto")
    device.require_precision("cpu", "fp32")
    with pytest.raises(SettingsError, match=r"the device cpu has no bf16 .* auto or fp32"):
        device.require_precision("cpu", "bf16")


def test_torch_says_whether_a_device_has_bf16() -> None:
    found, problem = device._number(device._BF16, "auto")
    assert found == has_bf16("cuda" if torch.cuda.is_available() else "cpu")
    assert not problem


def test_a_driver_that_hangs_has_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_COUNT", "import time; time.sleep(60)")
    monkeypatch.setattr(device, "_SECONDS", 0.2)
    with pytest.raises(SettingsError, match="finds no GPU"):
        device.require_device("cuda")


def test_a_machine_without_the_libraries_of_trainers_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(device, "find_spec", lambda _: None)
    with pytest.raises(StartError, match=r"pip install 'lethe\[engine\]'"):
        device.require_device("cpu")
