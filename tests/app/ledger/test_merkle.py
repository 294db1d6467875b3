"""Merkle code against the RFCs' vectors, a second implementation, and tampering."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymerkle import InmemoryTree, verify_consistency, verify_inclusion

from app.ledger import merkle
from app.ledger.merkle import ProofError

# The reference implementation of Certificate Transparency (RFC 6962) is tested with these leaves.
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
PATHS = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
CONSISTENCY = {
    (1, 1): [],
    (1, 8): PATHS[0, 8],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}


def hashes_of(leaves: list[bytes]) -> list[bytes]:
    return [merkle.leaf_hash(leaf) for leaf in leaves]


def range_hash(leaves: list[bytes], span: merkle.Range) -> bytes:
    """Fold a range as the log does: from the hashes of complete subtrees."""
    nodes = merkle.complete_subtrees(span)
    return merkle.fold(
        [
            merkle.root_hash(hashes_of(leaves[place << level : (place + 1) << level]))
            for level, place in nodes
        ]
    )


def made(leaves: list[bytes], spans: list[merkle.Range]) -> list[bytes]:
    return [range_hash(leaves, span) for span in spans]


@pytest.mark.parametrize("size", range(9))
def test_roots_are_those_of_the_reference_implementation(size: int) -> None:
    assert merkle.root_hash(hashes_of(LEAVES[:size])).hex() == ROOTS[size]
    assert range_hash(LEAVES, (0, size)).hex() == ROOTS[size]


@pytest.mark.parametrize(("leaf_index", "size"), PATHS)
def test_inclusion_proofs_are_those_of_the_reference_implementation(
    leaf_index: int, size: int
) -> None:
    proof = made(LEAVES, merkle.inclusion_ranges(leaf_index, size))
    assert [one.hex() for one in proof] == PATHS[leaf_index, size]
    leaf = merkle.leaf_hash(LEAVES[leaf_index])
    merkle.verify_inclusion(leaf_index, size, leaf, proof, bytes.fromhex(ROOTS[size]))


@pytest.mark.parametrize(("first", "second"), CONSISTENCY)
def test_consistency_proofs_are_those_of_the_reference_implementation(
    first: int, second: int
) -> None:
    proof = made(LEAVES, merkle.consistency_ranges(first, second))
    assert [one.hex() for one in proof] == CONSISTENCY[first, second]


def test_proofs_have_the_parts_of_the_example_in_rfc_6962_section_2_1_3() -> None:
    a, b, c, d, f, j = (0, 1), (1, 2), (2, 3), (3, 4), (5, 6), (6, 7)
    g, h, i, k, last = (0, 2), (2, 4), (4, 6), (0, 4), (4, 7)
    assert merkle.inclusion_ranges(0, 7) == [b, h, last]
    assert merkle.inclusion_ranges(3, 7) == [c, g, last]
    assert merkle.inclusion_ranges(4, 7) == [f, j, k]
    assert merkle.inclusion_ranges(6, 7) == [i, k]
    assert merkle.consistency_ranges(3, 7) == [c, d, g, last]
    assert merkle.consistency_ranges(4, 7) == [last]
    assert merkle.consistency_ranges(6, 7) == [i, j, k]
    assert merkle.inclusion_ranges(1, 7)[0] == a


def test_every_proof_of_small_trees_agrees_with_pymerkle() -> None:
    other = InmemoryTree(algorithm="sha256")
    leaves = [bytes([number]) * number for number in range(20)]
    other.append_entries(leaves)
    for size in range(1, 21):
        root = merkle.root_hash(hashes_of(leaves[:size]))
        assert other.get_root(size) == root
        for leaf_index in range(size):
            theirs = other.prove_inclusion(leaf_index + 1, size)
            ours = made(leaves, merkle.inclusion_ranges(leaf_index, size))
            assert theirs.path[1:] == ours
            leaf = merkle.leaf_hash(leaves[leaf_index])
            merkle.verify_inclusion(leaf_index, size, leaf, ours, root)
            verify_inclusion(leaf, root, theirs, index=leaf_index + 1, size=size)


def test_every_consistency_between_small_trees_holds_here_and_in_pymerkle() -> None:
    other = InmemoryTree(algorithm="sha256")
    leaves = [bytes([number]) * number for number in range(20)]
    other.append_entries(leaves)
    roots = [merkle.root_hash(hashes_of(leaves[:size])) for size in range(21)]
    for second in range(21):
        for first in range(second + 1):
            proof = made(leaves, merkle.consistency_ranges(first, second))
            merkle.verify_consistency(first, second, roots[first], roots[second], proof)
            if first:
                theirs = other.prove_consistency(first, second)
                verify_consistency(roots[first], roots[second], theirs)


SIZES = st.integers(1, 200)


@given(data=st.data(), size=SIZES)
def test_a_changed_inclusion_proof_is_refused(data: st.DataObject, size: int) -> None:
    leaves = [str(number).encode() for number in range(size)]
    leaf_index = data.draw(st.integers(0, size - 1))
    root = merkle.root_hash(hashes_of(leaves))
    leaf = merkle.leaf_hash(leaves[leaf_index])
    proof = made(leaves, merkle.inclusion_ranges(leaf_index, size))
    merkle.verify_inclusion(leaf_index, size, leaf, proof, root)
    other = data.draw(st.integers(0, size + 3).filter(lambda index: index != leaf_index))
    with pytest.raises(ProofError):
        merkle.verify_inclusion(other, size, leaf, proof, root)
    with pytest.raises(ProofError):
        merkle.verify_inclusion(leaf_index, size, leaf, changed(data, proof), root)


@given(data=st.data(), second=st.integers(2, 200))
def test_a_changed_consistency_proof_is_refused(data: st.DataObject, second: int) -> None:
    leaves = [str(number).encode() for number in range(second)]
    first = data.draw(st.integers(1, second - 1))
    roots = [merkle.root_hash(hashes_of(leaves[:size])) for size in (first, second)]
    proof = made(leaves, merkle.consistency_ranges(first, second))
    merkle.verify_consistency(first, second, *roots, proof)
    with pytest.raises(ProofError):
        merkle.verify_consistency(first, second, *roots, changed(data, proof))


@given(data=st.data(), second=st.integers(2, 100))
def test_a_log_that_changed_an_old_leaf_cannot_prove_consistency(
    data: st.DataObject, second: int
) -> None:
    leaves = [str(number).encode() for number in range(second)]
    first = data.draw(st.integers(1, second - 1))
    old_root = merkle.root_hash(hashes_of(leaves[:first]))
    leaves[data.draw(st.integers(0, first - 1))] = b"forged"
    proof = made(leaves, merkle.consistency_ranges(first, second))
    with pytest.raises(ProofError):
        merkle.verify_consistency(
            first, second, old_root, merkle.root_hash(hashes_of(leaves)), proof
        )


def changed(data: st.DataObject, proof: list[bytes]) -> list[bytes]:
    """Drop, add or alter one hash."""
    ways = ["add"] + (["drop", "alter"] if proof else [])
    way = data.draw(st.sampled_from(ways))
    place = data.draw(st.integers(0, max(0, len(proof) - 1)))
    if way == "add":
        return [*proof[:place], b"\x07" * 32, *proof[place:]]
    if way == "drop":
        return proof[:place] + proof[place + 1 :]
    bit = data.draw(st.integers(0, 255))
    number = int.from_bytes(proof[place], "big") ^ (1 << bit)
    return [*proof[:place], number.to_bytes(32, "big"), *proof[place + 1 :]]


def test_a_leaf_cannot_be_passed_off_as_an_inner_node() -> None:
    left, right = hashes_of([b"a", b"b"])
    assert merkle.leaf_hash(left + right) != merkle.node_hash(left, right)


@pytest.mark.parametrize(("first", "second"), [(-1, 3), (4, 3)])
def test_sizes_out_of_order_have_no_consistency_proof(first: int, second: int) -> None:
    with pytest.raises(ProofError, match="no consistency proof"):
        merkle.consistency_ranges(first, second)


def test_different_roots_of_one_size_are_refused() -> None:
    with pytest.raises(ProofError, match="different roots for the same size"):
        merkle.verify_consistency(3, 3, b"\x01" * 32, b"\x02" * 32, [])
