"""Two small data sets on the disk, in the layouts that users have."""

from collections.abc import Callable

import pytest
import torch

from engine.data.digits import write_digits
from engine.data.manifest import load_dataset
from engine.data.pairs import PairDataset
from engine.families import PairModel, families
from engine.spec import DataSpec
from tests.graphs import write_graphs


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def image_data(tmp_path_factory: pytest.TempPathFactory) -> PairDataset:
    """60 scans-of-digits images with captions."""
    root = tmp_path_factory.mktemp("digits") / "digits"
    write_digits(root, pairs=60, seed=1)
    return load_dataset(DataSpec(manifest=root / "manifest.jsonl", root=root))


@pytest.fixture(scope="session")
def graph_files(tmp_path_factory: pytest.TempPathFactory) -> DataSpec:
    """40 subgraphs with a label."""
    root = tmp_path_factory.mktemp("graphs")
    write_graphs(root)
    return DataSpec(manifest=root / "manifest.jsonl", root=root)


@pytest.fixture(scope="session")
def graph_data(graph_files: DataSpec) -> PairDataset:
    return load_dataset(graph_files)


@pytest.fixture
def data_for(image_data: PairDataset, graph_data: PairDataset) -> Callable[[str], PairDataset]:
    """The small data set that a family can read."""
    kinds = {"image": image_data, "graph": graph_data}
    return lambda family: kinds[families.get(family).modality]


@pytest.fixture
def tiny(data_for: Callable[[str], PairDataset]) -> Callable[..., PairModel]:
    """A function that builds the tiny model of a family."""

    def build(family: str, seed: int = 0) -> PairModel:
        kind = families.get(family)
        return kind.build(kind.tiny(), data_for(family), seed)

    return build
