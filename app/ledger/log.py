"""The log in PostgreSQL: append, signed heads, proofs; one appender at a time, by a row lock."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import BigInteger, Integer, bindparam, select, text
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import Session

from app.core.db import Finale, end_with, has_ended
from app.core.together import Statement
from app.ledger import merkle, tables
from app.ledger.errors import LogCorrupt, NoSuchLeaf, NoSuchSize
from app.ledger.records import Record
from app.ledger.tree_head import NoteError, Signer, TreeHead, verify_note

_APPEND = text("SELECT lethe_append(:kind, :subject, :body)")

_APPEND_LAST = "SELECT lethe_append(%(kind)s, %(subject)s, %(body)s)"
_DO_NOT_WAIT: Statement = ("SET LOCAL synchronous_commit = off", {})
_WAIT = text("SET LOCAL synchronous_commit = on")
_MARK: Statement = ("SELECT pg_logical_emit_message(true, 'lethe', '')", {})

_NODES = text(
    "SELECT wanted.level, wanted.position, hash"
    " FROM unnest(:levels, :positions) AS wanted(level, position)"
    " JOIN ledger_nodes AS node"
    " ON node.level = wanted.level AND node.position = wanted.position"
).bindparams(
    bindparam("levels", type_=ARRAY(Integer)), bindparam("positions", type_=ARRAY(BigInteger))
)


def append(session: Session, record: Record) -> int:
    """Append ``record`` in the transaction of ``session`` and return its leaf index.

    Takes the log's lock, which is held until the transaction ends: call it last. If the transaction
    rolls back, the leaf was never there.
    """
    _refuse_after_end(session)
    session.flush()
    leaf_index: int = session.execute(_APPEND, _values(record)).scalar_one()
    return leaf_index


def _values(record: Record) -> dict[str, Any]:
    return {"kind": record.kind, "subject": record.subject, "body": record.body()}


def append_quickly(session: Session, record: Record, after: Sequence[Statement] = ()) -> None:
    """Append ``record`` at the very end of the transaction, in one message with its COMMIT.

    The statements ``after`` which it is to come are sent in this message too.

    For transactions that many callers run at once: the log is locked for neither our own time nor
    the disk's. The COMMIT does not wait for the disk, but a second, tiny one in the same message
    does, so that the caller still knows that everything is durable, and callers that wait at the
    same time share one write. Should the server crash in between, the caller gets an error, and the
    leaf and what it records are there together or not at all. Nothing else may be appended, and no
    head signed, in such a transaction.
    """
    end_with(session, Finale([*after, _DO_NOT_WAIT, (_APPEND_LAST, _values(record))], [_MARK]))


def _refuse_after_end(session: Session) -> None:
    if has_ended(session):
        raise RuntimeError("append_quickly ends its transaction; append and sign before it.")


def append_all(session: Session, records: Iterable[Record]) -> list[int]:
    """Append several records in their order; see `append`."""
    return [append(session, record) for record in records]


def size(session: Session) -> int:
    """Return the number of leaves."""
    return session.scalar(select(tables.LogState.size)) or 0


def range_hashes(session: Session, ranges: Sequence[merkle.Range]) -> list[bytes]:
    """Return the hash of each range of leaves, with one query for all of them."""
    wanted = [merkle.complete_subtrees(leaves) for leaves in ranges]
    found = nodes(session, [node for subtrees in wanted for node in subtrees])
    try:
        return [merkle.fold([found[node] for node in subtrees]) for subtrees in wanted]
    except KeyError as error:
        raise LogCorrupt(f"The log lacks the node (level, position) = {error}.") from error


def nodes(session: Session, wanted: Sequence[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
    """Return the stored hashes of complete subtrees by (level, position), as far as they are there."""
    if not wanted:
        return {}
    levels, positions = zip(*wanted, strict=True)
    rows = session.execute(_NODES, {"levels": list(levels), "positions": list(positions)})
    return {(row.level, row.position): bytes(row.hash) for row in rows}


def root(session: Session, at_size: int) -> bytes:
    """Return the root of the first ``at_size`` leaves."""
    return range_hashes(session, [(0, at_size)])[0]


def head(session: Session, signer: Signer) -> TreeHead:
    """Return the signed head of the log as it is now; signs it if nobody has.

    Raises:
        LogCorrupt: another root was signed for this size before.
    """
    return head_at(session, signer, size(session))


def head_at(session: Session, signer: Signer, at_size: int) -> TreeHead:
    """Return the signed head of the first ``at_size`` leaves; signs it if nobody has."""
    root_now = root(session, at_size)
    note = session.scalar(_stored_note(at_size))
    if note is None:
        _refuse_after_end(session)
        # Nobody may see a signed head whose leaves a crash could still take away.
        session.execute(_WAIT)
        row = {"size": at_size, "root": root_now, "note": signer.sign(at_size, root_now).note}
        session.execute(insert(tables.TreeHead).values(row).on_conflict_do_nothing())
        # Another transaction may have signed the size first: what is stored counts.
        note = session.scalar(_stored_note(at_size))
    try:
        signed = verify_note(note or "", signer.public_key_pem, signer.origin)
    except NoteError as error:
        raise LogCorrupt(
            f"The stored head of {at_size} leaves does not verify with the signing key: {error}"
            " Give the service the key and the origin that the log was begun with."
        ) from error
    if signed.root != root_now:
        raise LogCorrupt(
            f"The root of {at_size} leaves is not the one that was signed before. Compare the"
            " database with a backup before anything else is recorded."
        )
    return signed


def _stored_note(at_size: int) -> Any:
    return select(tables.TreeHead.note).where(tables.TreeHead.size == at_size)


def inclusion(session: Session, leaf_index: int, at_size: int) -> list[bytes]:
    """Return the proof that a leaf is in the tree of ``at_size`` leaves (RFC 6962, 2.1.1).

    Raises:
        NoSuchSize: the log has fewer leaves.
        NoSuchLeaf: the tree of that size has no such leaf.
    """
    _check_size(session, at_size)
    if not 0 <= leaf_index < at_size:
        raise NoSuchLeaf(f"A tree of {at_size} leaves has no leaf {leaf_index}; they count from 0.")
    return range_hashes(session, merkle.inclusion_ranges(leaf_index, at_size))


def consistency(session: Session, first: int, second: int) -> list[bytes]:
    """Return the proof that ``second`` leaves only add to ``first`` leaves (RFC 6962, 2.1.2).

    Raises:
        NoSuchSize: the log has fewer leaves, or first > second.
    """
    _check_size(session, second)
    if not 0 <= first <= second:
        raise NoSuchSize(f"A proof needs an earlier size, from 0 to {second}; {first} came.")
    return range_hashes(session, merkle.consistency_ranges(first, second))


def _check_size(session: Session, at_size: int) -> None:
    now = size(session)
    if not 0 <= at_size <= now:
        raise NoSuchSize(f"The log has {now} leaves now; there is no tree of {at_size} leaves.")


def entries(session: Session, start: int, limit: int) -> list[tables.Leaf]:
    """Return up to ``limit`` leaves from index ``start``."""
    leaf = tables.Leaf
    chosen = select(leaf).where(leaf.leaf_index >= start).order_by(leaf.leaf_index).limit(limit)
    return list(session.scalars(chosen))


def leaves_about(
    session: Session, subjects: Sequence[str], kinds: Sequence[str], limit: int = 200
) -> list[tables.Leaf]:
    """Return the first ``limit`` leaves of some kinds about any of ``subjects``, in order."""
    leaf = tables.Leaf
    chosen = select(leaf).where(leaf.subject.in_(subjects), leaf.kind.in_(kinds))
    return list(session.scalars(chosen.order_by(leaf.leaf_index).limit(limit)))
