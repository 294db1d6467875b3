"""Open the items of pairs: images from folders and archives, graphs from one npz file.

Nothing here unpickles, and every error names the reference that could not be used.
"""

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from engine.data.files import SEPARATOR, DataFiles
from engine.errors import DataError

MAX_IMAGE_PIXELS = 50_000_000
IMAGE_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
GRAPH_ARRAYS = ("pair_id", "node_ptr", "node_idx", "edge_ptr", "edge_src", "edge_dst")

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class GraphItem:
    """The subgraph of one pair.

    Attributes:
        nodes: ``(n,)`` ids of its nodes in the whole graph; local nodes 0 and 1 are the two
            entities that the pair's text is about.
        edges: ``(2, E)`` local node numbers; undirected, so that every edge stands in both
            directions exactly once; no node has an edge to itself.
        texts: text of each of the n nodes.
    """

    nodes: Integers
    edges: Integers
    texts: Sequence[str]


class ImageStore:
    """Images by reference, as RGB; transparent pixels become white.

    Args:
        files: the data set's files.
    """

    def __init__(self, files: DataFiles) -> None:
        self._files = files

    def load(self, reference: str) -> Image.Image:
        """Return the image; raises `DataError` if it is missing, broken, cut short or too large."""
        content = self._files.read(reference)
        try:
            with Image.open(io.BytesIO(content), formats=IMAGE_FORMATS) as image:
                _check_pixels(image.size, reference)
                image.load()
                return _to_rgb(image)
        except Image.DecompressionBombError as error:
            raise DataError(f"the image is too large: {error}", file=reference) from error
        except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error) as error:
            raise DataError(
                f"expected a whole image ({', '.join(IMAGE_FORMATS)}): {_damage(content, error)}",
                file=reference,
            ) from error


class GraphStore:
    """Subgraphs by reference ``folder/subgraphs.npz::<key>``.

    The npz holds, for the i-th key ``pair_id[i]``, the nodes
    ``node_idx[node_ptr[i]:node_ptr[i+1]]`` and the local edges
    ``edge_src/edge_dst[edge_ptr[i]:edge_ptr[i+1]]``. Beside it lies ``nodes.tsv`` with the columns
    ``node`` (0, 1, 2, ...) and ``text``.

    Args:
        files: the data set's files.
    """

    def __init__(self, files: DataFiles) -> None:
        self._files = files
        self._tables: dict[str, _GraphTable] = {}

    def load(self, reference: str) -> GraphItem:
        """Return the subgraph; raises `DataError` naming the reference."""
        name, separator, key = reference.rpartition(SEPARATOR)
        if not separator or not key:
            raise DataError(
                "a graph reference must be 'folder/file.npz::<key of the subgraph>'", file=reference
            )
        if name not in self._tables:
            self._tables[name] = _GraphTable(self._files, name)
        return self._tables[name].graph(key, reference)


def node_texts_of(name: str) -> str:
    """Return the file with the texts of the nodes of a graph file, both below the root of the data."""
    folder = name.rpartition("/")[0]
    return f"{folder}/nodes.tsv" if folder else "nodes.tsv"


class _GraphTable:
    """One npz of subgraphs with its node texts."""

    def __init__(self, files: DataFiles, name: str) -> None:
        self.arrays = _load_arrays(files.read(name), name)
        nodes = node_texts_of(name)
        self.texts = _node_texts(files.read(nodes), nodes)
        self.index = {str(key): row for row, key in enumerate(self.arrays["pair_id"])}

    def graph(self, key: str, reference: str) -> GraphItem:
        row = self.index.get(key)
        if row is None:
            raise DataError(f"the graph file has no subgraph {key!r}", file=reference)
        nodes = self._slice("node_idx", "node_ptr", row, reference)
        sources = self._slice("edge_src", "edge_ptr", row, reference)
        targets = self._slice("edge_dst", "edge_ptr", row, reference)
        self._check(nodes, np.stack([sources, targets]), reference)
        edges = _undirected(sources, targets)
        return GraphItem(nodes=nodes, edges=edges, texts=[self.texts[node] for node in nodes])

    def _slice(self, values: str, pointers: str, row: int, reference: str) -> Integers:
        start, stop = (int(end) for end in self.arrays[pointers][row : row + 2])
        if not 0 <= start <= stop <= len(self.arrays[values]):
            raise DataError(
                f"{pointers}[{row}] = {start} to {stop} does not fit the "
                f"{len(self.arrays[values])} entries of {values}",
                file=reference,
            )
        return self.arrays[values][start:stop].astype(np.int64)

    def _check(self, nodes: Integers, edges: Integers, reference: str) -> None:
        if len(nodes) < 2:
            raise DataError(
                f"a subgraph needs at least its 2 entities; it has {len(nodes)} nodes",
                file=reference,
            )
        if nodes.min() < 0 or nodes.max() >= len(self.texts):
            raise DataError(
                f"node ids must be 0 to {len(self.texts) - 1}; {nodes.min()} to {nodes.max()} came",
                file=reference,
            )
        if edges.size and (edges.min() < 0 or edges.max() >= len(nodes)):
            raise DataError(
                f"local edges must join nodes 0 to {len(nodes) - 1}; "
                f"{edges.min()} to {edges.max()} came",
                file=reference,
            )


def _load_arrays(content: bytes, name: str) -> dict[str, NDArray[np.generic]]:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in GRAPH_ARRAYS if key in archive}
    except Exception as error:  # numpy and zipfile raise many kinds for a damaged archive
        raise DataError(
            "expected an npz file of plain arrays, as numpy.savez writes them, and without "
            f"Python objects; it cannot be read ({type(error).__name__})",
            file=name,
        ) from error
    _check_arrays(arrays, name)
    return arrays


def _check_arrays(arrays: dict[str, NDArray[np.generic]], name: str) -> None:
    missing = [key for key in GRAPH_ARRAYS if key not in arrays]
    if missing:
        raise DataError(f"the graph file lacks {', '.join(missing)}", file=name)
    for key in GRAPH_ARRAYS[1:]:
        if arrays[key].ndim != 1 or not np.issubdtype(arrays[key].dtype, np.integer):
            raise DataError(f"{key} must be a vector of integers", file=name)
    count = len(arrays["pair_id"])
    for key in ("node_ptr", "edge_ptr"):
        if len(arrays[key]) != count + 1:
            raise DataError(
                f"{key} must have {count + 1} entries for {count} subgraphs; "
                f"it has {len(arrays[key])}",
                file=name,
            )
    if len(arrays["edge_src"]) != len(arrays["edge_dst"]):
        raise DataError("edge_src and edge_dst must be of one length", file=name)


def _node_texts(content: bytes, name: str) -> list[str]:
    """Return the column ``text`` of nodes.tsv, whose rows must be numbered 0, 1, 2, ..."""
    try:
        lines = content.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"expected UTF-8: {error}", file=name) from error
    columns = lines[0].rstrip("\r").split("\t")
    if "node" not in columns or "text" not in columns:
        raise DataError("the first line must name the columns 'node' and 'text'", file=name, line=1)
    node, text = columns.index("node"), columns.index("text")
    texts: list[str] = []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        fields = line.rstrip("\r").split("\t")
        if len(fields) != len(columns) or fields[node] != str(len(texts)):
            raise DataError(
                f"expected node {len(texts)} in {len(columns)} columns", file=name, line=number
            )
        texts.append(fields[text])
    return texts


def _undirected(sources: Integers, targets: Integers) -> Integers:
    """Return every edge in both directions once, without loops, in sorted order: ``(2, E)``."""
    keep = sources != targets
    sources, targets = sources[keep], targets[keep]
    both = np.stack([np.append(sources, targets), np.append(targets, sources)])
    return np.unique(both, axis=1) if both.size else both


def _check_pixels(size: tuple[int, int], reference: str) -> None:
    if size[0] * size[1] > MAX_IMAGE_PIXELS:
        raise DataError(
            f"the image has {size[0]} x {size[1]} pixels; at most {MAX_IMAGE_PIXELS} are opened",
            file=reference,
        )


def _damage(content: bytes, error: Exception) -> str:
    if not content:
        return "the file is empty"
    if isinstance(error, UnidentifiedImageError):
        # Pillow's own words name the object in memory that it was given.
        return f"its {len(content)} bytes begin as none of these does"
    return str(error) or "it is damaged"


def _to_rgb(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
