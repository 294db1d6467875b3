"""The append-only log: leaves, hashes of complete subtrees, signed tree heads, and the one lock."""

from sqlalchemy import BigInteger, CheckConstraint, LargeBinary, SmallInteger, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from app.core.tables import Created, Table


class Leaf(Table):
    """One entry; ``body`` is canonical JSON (RFC 8785), its hash is RFC 6962's leaf hash."""

    __tablename__ = "ledger_leaves"

    leaf_index: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(40), index=True)
    subject: Mapped[str] = mapped_column(String(40), index=True)
    body: Mapped[bytes] = mapped_column(LargeBinary)
    leaf_hash: Mapped[bytes] = mapped_column(LargeBinary(32))
    created_time: Mapped[Created]


class Node(Table):
    """Hash of a complete subtree: node i of level k covers leaves [i*2^k, (i+1)*2^k)."""

    __tablename__ = "ledger_nodes"

    level: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    position: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    hash: Mapped[bytes] = mapped_column(LargeBinary(32))


class TreeHead(Table):
    """A signed tree head (C2SP signed note) of the first ``size`` leaves."""

    __tablename__ = "ledger_tree_heads"

    size: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    root: Mapped[bytes] = mapped_column(LargeBinary(32))
    note: Mapped[str] = mapped_column(Text)
    created_time: Mapped[Created]


class LogState(Table):
    """The single row that an appender locks; holds the size of the log."""

    __tablename__ = "ledger_state"
    __table_args__ = (CheckConstraint("singleton", name="singleton"),)

    singleton: Mapped[bool] = mapped_column(primary_key=True, default=True)
    size: Mapped[int] = mapped_column(BigInteger, default=0)
