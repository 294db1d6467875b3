"""A folder of data sets: digits, 120 pairs of them."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.paper.data import BenchData, prepare
from engine.data.digits import write_digits
from engine.families import families
from tests.benchmarks.tiny_bench import TINY


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    """A command sets what ends it; tests that follow have their own again."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(autouse=True)
def _own_families(monkeypatch: pytest.MonkeyPatch) -> None:
    """Families that a benchmark adds are no part of the engine that other tests look at."""
    monkeypatch.setattr(families, "_components", dict(families._components))


@pytest.fixture(scope="session")
def data_sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_digits(folder / "digits", pairs=120)
    return folder


@pytest.fixture(scope="session")
def prepared(data_sets: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, BenchData]:
    """The tiny data sets as the benchmark prepares them."""
    out = tmp_path_factory.mktemp("out")
    return {name: prepare(preset, data_sets, out / name) for name, preset in TINY.items()}
