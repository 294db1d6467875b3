import io
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.data import items
from engine.data.files import DataFiles
from engine.data.items import GraphStore, ImageStore
from engine.errors import DataError

KEY = "graph/subgraphs_1hop.npz::"
Arrays = dict[str, np.ndarray]
WriteTar = Callable[[Path, Sequence[tuple[str, bytes]]], Path]


def _store(root: Path, content: bytes) -> ImageStore:
    (root / "a.png").write_bytes(content)
    return ImageStore(DataFiles(root))


def test_an_image_is_loaded_as_rgb_with_its_pixels_unchanged(tmp_path: Path, png: bytes) -> None:
    image = _store(tmp_path, png).load("a.png")
    expected = np.random.default_rng(0).integers(0, 256, size=(40, 30, 3), dtype=np.uint8)
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), expected)


def test_transparent_pixels_become_white(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.new("RGBA", (2, 2), (200, 0, 0, 0)).save(out, "PNG")
    image = _store(tmp_path, out.getvalue()).load("a.png")
    assert image.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.98])
def test_a_truncated_image_is_an_error_that_names_it(
    tmp_path: Path, png: bytes, share: float
) -> None:
    store = _store(tmp_path, png[: int(share * len(png))])
    with pytest.raises(DataError, match=r"a\.png"):
        store.load("a.png")


def test_a_flipped_bit_in_an_image_is_an_error_that_names_it(tmp_path: Path, png: bytes) -> None:
    broken = bytearray(png)
    broken[len(broken) // 2] ^= 0x10
    store = _store(tmp_path, bytes(broken))
    with pytest.raises(DataError, match=r"a\.png"):
        store.load("a.png")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"<html>not found</html>", "its 22 bytes begin as none of these does"),
    ],
)
def test_what_is_no_image_is_said_in_words_that_name_it(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    with pytest.raises(DataError) as caught:
        _store(tmp_path, content).load("a.png")
    formats = "PNG, JPEG, WEBP, GIF, BMP, TIFF"
    assert str(caught.value) == f"a.png: expected a whole image ({formats}): {reason}"


# Pillow warns of what it then refuses.
@pytest.mark.filterwarnings("ignore:Truncated File Read", "ignore:.*EXIF", "ignore:Tag data")
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_no_cut_of_any_format_shows_an_object_in_memory(tmp_path: Path, form: str) -> None:
    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, size=(40, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(out, form)
    content = out.getvalue()
    for share in (0.02, 0.2, 0.5, 0.8):
        store = _store(tmp_path, content[: int(share * len(content))])
        with pytest.raises(DataError) as caught:
            store.load("a.png")
        assert str(caught.value).startswith("a.png: expected a whole image")
        assert "<" not in str(caught.value)


def test_images_of_tar_shards_are_loaded_and_a_broken_one_is_named(
    tmp_path: Path, png: bytes, write_tar: WriteTar
) -> None:
    write_tar(tmp_path / "shards" / "000000.tar", [("a.png", png), ("b.png", png[:200])])
    store = ImageStore(DataFiles(tmp_path))
    assert store.load("shards/000000.tar::a.png").size == (30, 40)
    with pytest.raises(DataError, match=r"^shards/000000\.tar::b\.png: expected a whole image"):
        store.load("shards/000000.tar::b.png")


def test_an_image_format_that_is_not_listed_is_refused(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, "EPS")
    with pytest.raises(DataError, match="expected a whole image"):
        _store(tmp_path, out.getvalue()).load("a.png")


def test_an_image_over_the_pixel_limit_is_not_decoded(
    tmp_path: Path, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(items, "MAX_IMAGE_PIXELS", 1199)
    with pytest.raises(DataError, match="30 x 40 pixels; at most 1199"):
        _store(tmp_path, png).load("a.png")


def test_a_graph_has_its_nodes_texts_and_each_edge_in_both_directions(graph_root: Path) -> None:
    graph = GraphStore(DataFiles(graph_root)).load(KEY + "p0")
    assert graph.nodes.tolist() == [4, 2, 0]
    assert graph.texts == ['a "text" of 4', 'a "text" of 2', 'a "text" of 0']
    # 0-2 was given in both directions, 2-1 in one, 1-1 is a loop and is left out.
    assert graph.edges.T.tolist() == [[0, 2], [1, 2], [2, 0], [2, 1]]
    assert graph.nodes.dtype == graph.edges.dtype == np.int64


def test_a_graph_may_have_no_edge(graph_root: Path) -> None:
    graph = GraphStore(DataFiles(graph_root)).load(KEY + "p1")
    assert graph.nodes.tolist() == [1, 3]
    assert graph.edges.shape == (2, 0)


def _broken(root: Path, arrays: Arrays, **changes: np.ndarray) -> GraphStore:
    np.savez_compressed(root / "graph" / "subgraphs_1hop.npz", **{**arrays, **changes})
    return GraphStore(DataFiles(root))


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("edge_dst", [2, 0, 3, 1], "local edges must join nodes 0 to 2"),
        ("edge_src", [0, -1, 2, 1], "local edges must join nodes 0 to 2"),
        ("node_idx", [4, 2, 5, 1, 3], "node ids must be 0 to 4"),
        ("node_ptr", [0, 1, 5], "needs at least its 2 entities; it has 1"),
        ("node_ptr", [0, 9, 5], "does not fit"),
        ("edge_ptr", [3, 1, 4], "does not fit"),
    ],
)
def test_a_broken_subgraph_is_an_error_that_names_it(
    graph_root: Path, graph_arrays: Arrays, name: str, values: list[int], reason: str
) -> None:
    store = _broken(graph_root, graph_arrays, **{name: np.array(values)})
    with pytest.raises(DataError, match=reason) as caught:
        store.load(KEY + "p0")
    assert KEY + "p0" in str(caught.value)


def test_a_subgraph_beside_a_broken_one_still_loads(graph_root: Path, graph_arrays: Arrays) -> None:
    store = _broken(graph_root, graph_arrays, edge_dst=np.array([2, 0, 9, 1]))
    assert store.load(KEY + "p1").nodes.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"node_ptr": np.array([0, 3])}, "must have 3 entries for 2 subgraphs"),
        ({"edge_dst": np.array([2])}, "of one length"),
        ({"node_idx": np.array([0.5, 1.0])}, "vector of integers"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(
    graph_root: Path, graph_arrays: Arrays, changes: Arrays, reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        _broken(graph_root, graph_arrays, **changes).load(KEY + "p0")


def test_a_missing_array_is_named(graph_root: Path, graph_arrays: Arrays) -> None:
    del graph_arrays["edge_ptr"]
    with pytest.raises(DataError, match="lacks edge_ptr"):
        _broken(graph_root, graph_arrays).load(KEY + "p0")


def test_pickled_objects_are_never_loaded(graph_root: Path, graph_arrays: Arrays) -> None:
    store = _broken(graph_root, graph_arrays, pair_id=np.array(["p0", None], dtype=object))
    with pytest.raises(DataError, match="without Python objects"):
        store.load(KEY + "p0")


def test_a_truncated_graph_file_is_an_error(graph_root: Path) -> None:
    path = graph_root / "graph" / "subgraphs_1hop.npz"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="npz"):
        GraphStore(DataFiles(graph_root)).load(KEY + "p0")


@pytest.mark.parametrize("reference", [KEY + "p9", "graph/subgraphs_1hop.npz", KEY])
def test_an_unknown_graph_is_an_error_that_names_it(graph_root: Path, reference: str) -> None:
    with pytest.raises(DataError) as caught:
        GraphStore(DataFiles(graph_root)).load(reference)
    assert reference in str(caught.value)


def test_nodes_out_of_order_are_an_error_that_names_the_line(graph_root: Path) -> None:
    nodes = graph_root / "graph" / "nodes.tsv"
    nodes.write_text("node\ttext\n0\tzero\n2\ttwo\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"nodes\.tsv, line 3: expected node 1"):
        GraphStore(DataFiles(graph_root)).load(KEY + "p0")


def test_nodes_without_the_text_column_are_an_error(graph_root: Path) -> None:
    (graph_root / "graph" / "nodes.tsv").write_text("node\tname\n0\tzero\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"nodes\.tsv, line 1: .*'node' and 'text'"):
        GraphStore(DataFiles(graph_root)).load(KEY + "p0")


def test_blank_lines_between_nodes_do_not_count(graph_root: Path) -> None:
    nodes = graph_root / "graph" / "nodes.tsv"
    nodes.write_text(nodes.read_text(encoding="utf-8").replace("\n", "\n\n"), encoding="utf-8")
    assert len(GraphStore(DataFiles(graph_root)).load(KEY + "p0").texts) == 3


def test_nodes_that_are_not_utf_8_are_an_error(graph_root: Path) -> None:
    (graph_root / "graph" / "nodes.tsv").write_bytes(b"node\ttext\n0\t\xff\n")
    with pytest.raises(DataError, match=r"nodes\.tsv: expected UTF-8"):
        GraphStore(DataFiles(graph_root)).load(KEY + "p0")


def test_an_image_that_claims_absurd_sizes_is_refused(tmp_path: Path, png: bytes) -> None:
    header = bytearray(png[8:33])
    header[8:16] = (60_000).to_bytes(4, "big") * 2
    header[21:25] = zlib.crc32(header[4:21]).to_bytes(4, "big")
    with pytest.raises(DataError, match="too large"):
        _store(tmp_path, png[:8] + bytes(header) + png[33:]).load("a.png")
