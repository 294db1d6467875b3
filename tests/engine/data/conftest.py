"""Small real data sets, and the way to the large ones."""

import io
import json
import os
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Rows = list[dict[str, Any]]
BESIDE = Path(__file__).parents[4] / "shared" / "data"
"""Where the real data sets lie unless LETHE_TEST_DATA says otherwise: beside the project's folder."""


@pytest.fixture(scope="session")
def real_data() -> Path:
    named = os.environ.get("LETHE_TEST_DATA")
    if not named and not BESIDE.is_dir():
        pytest.skip(f"LETHE_TEST_DATA names no folder of the real data sets, and {BESIDE} is none")
    return Path(named or BESIDE)


@pytest.fixture
def png() -> bytes:
    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, size=(40, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def write_tar() -> Callable[[Path, Sequence[tuple[str, bytes]]], Path]:
    """A function that writes files, in order, into a tar archive."""

    def write(path: Path, files: Sequence[tuple[str, bytes]]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(path, "w") as archive:
            for name, content in files:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return path

    return write


@pytest.fixture
def write_lines(tmp_path: Path) -> Callable[[str, Rows], Path]:
    """A function that writes objects as the JSON lines of a file below ``tmp_path``."""

    def write(name: str, rows: Rows) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def write_manifest(write_lines: Callable[[str, Rows], Path]) -> Callable[[Rows], Path]:
    return lambda rows: write_lines("manifest.jsonl", rows)


@pytest.fixture
def graph_arrays() -> dict[str, np.ndarray]:
    """Two subgraphs: a triangle-free path of three nodes, and two nodes without an edge."""
    return {
        "pair_id": np.array(["p0", "p1"]),
        "node_ptr": np.array([0, 3, 5], dtype=np.int32),
        "node_idx": np.array([4, 2, 0, 1, 3], dtype=np.int32),
        "edge_ptr": np.array([0, 4, 4], dtype=np.int32),
        "edge_src": np.array([0, 2, 2, 1], dtype=np.int16),
        "edge_dst": np.array([2, 0, 1, 1], dtype=np.int16),
    }


@pytest.fixture
def graph_root(tmp_path: Path, graph_arrays: dict[str, np.ndarray]) -> Path:
    folder = tmp_path / "graph"
    folder.mkdir()
    np.savez_compressed(folder / "subgraphs_1hop.npz", **graph_arrays)
    lines = ["node\tid\ttext", *(f'{node}\tN{node}\ta "text" of {node}' for node in range(5))]
    (folder / "nodes.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path
