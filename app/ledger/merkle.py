"""Merkle trees as in RFC 6962 and RFC 9162, section 2.1: pure functions on SHA-256 hashes.

A proof is made in two steps, so that a store can fetch what it takes in one query: first the ranges
of leaves whose hashes make up the proof (`inclusion_ranges`, `consistency_ranges`), then, for each
range, the complete subtrees that it is folded from (`complete_subtrees`, `fold`).
"""

import hashlib
from collections.abc import Sequence

HASH_SIZE = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

Range = tuple[int, int]
"""Leaves ``[start, end)``."""


class ProofError(ValueError):
    """A proof does not show what it should; the sentence says which part fails."""


def leaf_hash(body: bytes) -> bytes:
    """Return SHA-256(0x00 || body): the hash of a leaf (RFC 6962 section 2.1)."""
    return hashlib.sha256(b"\x00" + body).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return SHA-256(0x01 || left || right): the hash of an inner node (RFC 6962 section 2.1)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def _split(size: int) -> int:
    """Return the largest power of two that is smaller than ``size`` (k in the RFC); size > 1."""
    return 1 << ((size - 1).bit_length() - 1)


def complete_subtrees(leaves: Range) -> list[tuple[int, int]]:
    """Return (level, position) of the complete subtrees that cover ``leaves``, from left to right.

    ``leaves`` must be a range of the recursion of RFC 6962: its start is a multiple of the smallest
    power of two that is not below its length.
    """
    start, end = leaves
    nodes = []
    while start < end:
        level = (end - start).bit_length() - 1
        nodes.append((level, start >> level))
        start += 1 << level
    return nodes


def fold(hashes: Sequence[bytes]) -> bytes:
    """Join the hashes of complete subtrees, left to right, into the hash of their range."""
    if not hashes:
        return EMPTY_ROOT
    result = hashes[-1]
    for left in reversed(hashes[:-1]):
        result = node_hash(left, result)
    return result


def root_hash(leaf_hashes: Sequence[bytes]) -> bytes:
    """Return MTH(D[n]) of the leaves' hashes, by its definition (RFC 6962 section 2.1)."""
    size = len(leaf_hashes)
    if size == 0:
        return EMPTY_ROOT
    if size == 1:
        return leaf_hashes[0]
    k = _split(size)
    return node_hash(root_hash(leaf_hashes[:k]), root_hash(leaf_hashes[k:]))


def inclusion_ranges(leaf_index: int, size: int) -> list[Range]:
    """Return the ranges whose hashes are PATH(m, D[n]), in the order of the proof (section 2.1.1).

    Raises:
        ProofError: not 0 <= leaf_index < size.
    """
    if not 0 <= leaf_index < size:
        raise ProofError(f"A log of {size} leaves has no leaf {leaf_index}.")
    start, end = 0, size
    path: list[Range] = []
    while end - start > 1:
        middle = start + _split(end - start)
        if leaf_index < middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((start, middle))
            start = middle
    return path[::-1]


def consistency_ranges(first: int, second: int) -> list[Range]:
    """Return the ranges whose hashes are PROOF(m, D[n]), in the order of the proof (section 2.1.2).

    Empty where first is 0 or equals second: there is nothing to prove.

    Raises:
        ProofError: not 0 <= first <= second.
    """
    if not 0 <= first <= second:
        raise ProofError(f"There is no consistency proof from size {first} to {second}.")
    if first in (0, second):
        return []
    start, end, known = 0, second, True
    path: list[Range] = []
    while first != end:
        middle = start + _split(end - start)
        if first <= middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((start, middle))
            start, known = middle, False
    if not known:
        path.append((start, end))
    return path[::-1]


def _check_hashes(hashes: Sequence[bytes]) -> None:
    if any(len(one) != HASH_SIZE for one in hashes):
        raise ProofError(f"Every hash of a proof has {HASH_SIZE} bytes.")


def verify_inclusion(
    leaf_index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes
) -> None:
    """Check that ``leaf`` (its hash) is at ``leaf_index`` of the tree (RFC 9162 section 2.1.3.2).

    Raises:
        ProofError: it is not shown.
    """
    _check_hashes([leaf, root, *proof])
    if not 0 <= leaf_index < size:
        raise ProofError(f"A log of {size} leaves has no leaf {leaf_index}.")
    position, last, result = leaf_index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise ProofError("The inclusion proof is longer than the tree is high.")
        if position % 2 or position == last:
            result = node_hash(sibling, result)
            while position % 2 == 0 and position:
                position, last = position >> 1, last >> 1
        else:
            result = node_hash(result, sibling)
        position, last = position >> 1, last >> 1
    if last:
        raise ProofError("The inclusion proof is shorter than the tree is high.")
    if result != root:
        raise ProofError("The inclusion proof does not lead to the root of the tree head.")


def verify_consistency(
    first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the tree of ``second`` leaves only adds to that of ``first`` (RFC 9162, 2.1.4.2).

    Raises:
        ProofError: it is not shown.
    """
    _check_hashes([first_root, second_root, *proof])
    if not 0 <= first <= second:
        raise ProofError(f"A log of {second} leaves cannot follow one of {first}.")
    if first in (0, second):
        _verify_trivial(first, first_root, second_root, proof)
        return
    path = list(proof)
    if first & (first - 1) == 0:
        path.insert(0, first_root)
    roots = _replay(first, second, path)
    if roots != (first_root, second_root):
        raise ProofError(
            f"The consistency proof does not lead to both roots: the log of {second} leaves is no"
            f" continuation of the log of {first} leaves."
        )


def _verify_trivial(
    first: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]
) -> None:
    if proof:
        raise ProofError("A consistency proof from size 0, or between equal sizes, is empty.")
    if first_root != (EMPTY_ROOT if first == 0 else second_root):
        raise ProofError("The two tree heads name different roots for the same size.")


def _replay(first: int, second: int, path: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Return the two roots that ``path`` leads to (RFC 9162 section 2.1.4.2, steps 3 to 7)."""
    position, last = first - 1, second - 1
    while position % 2:
        position, last = position >> 1, last >> 1
    if not path:
        raise ProofError("The consistency proof is empty.")
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise ProofError("The consistency proof is longer than the tree is high.")
        if position % 2 or position == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while position % 2 == 0 and position:
                position, last = position >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        position, last = position >> 1, last >> 1
    if last:
        raise ProofError("The consistency proof is shorter than the tree is high.")
    return old, new
