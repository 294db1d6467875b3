"""The whole log, recomputed from its leaves, against every hash and every signed head that is stored.

Triggers and grants keep the service from changing the log, but not a superuser of the database.
What one changes shows here: the hashes are computed in this process from the bodies of the leaves,
and the roots must be those that were signed. A log that was rewritten and signed again with its own
key shows only beside a tree head that somebody else has kept.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.engine import Row
from sqlalchemy.orm import Session

from app.core.paths import is_there
from app.ledger import log, merkle, tables
from app.ledger.files import read_head
from app.ledger.key_file import KeyFileError
from app.ledger.records import Record
from app.ledger.tree_head import NoteError, Signer, TreeHead, verify_note

_Leaf = Row[int, str, str, bytes, bytes]
_BATCH = 1000
_SUBJECT_FIELDS = {one.kind: one.subject_field for one in Record.__subclasses__()}


@dataclass(frozen=True)
class LogReport:
    """What a check of the log found.

    Attributes:
        leaves: how many could be gone through.
        heads: signed tree heads that are stored.
        faults: sentences about what is wrong with the log itself, none where it holds.
        foreign: why the tree head that was kept is none of this log, if it is not.
    """

    leaves: int
    heads: int
    faults: tuple[str, ...]
    foreign: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the log holds, and a tree head that was kept is of it."""
        return not self.faults and self.foreign is None

    def text(self) -> str:
        """Return the report as text for a terminal."""
        if self.ok:
            return (
                f"VERIFIED: the log holds. Recomputed from its {self.leaves} leaves, it has every "
                f"root that was signed ({self.heads} tree heads)."
            )
        foreign = [] if self.foreign is None else [f"The tree head that you kept: {self.foreign}"]
        title = "NOT VERIFIED: the log was changed. Restore it from a backup before anything else."
        if not self.faults:
            title = (
                "NOT VERIFIED: the log holds by itself, and the tree head that you kept is none of it: it is "
                "of another log, or was changed, or this log was put in the place of the one that you know. "
                "See first whether it is the right file."
            )
        return "\n".join([title, *(f"- {fault}" for fault in [*self.faults, *foreign])])


def check_files(
    session: Session, signing_key: Path, origin: str, older_head: Path | None = None
) -> LogReport:
    """Check the log with the key in a file, and beside a tree head in a file; see `check_log`.

    Raises:
        CertificateError: the tree head cannot be read.
        KeyFileError: the key cannot be read.
    """
    older = None if older_head is None else read_head(older_head)
    if not is_there(signing_key):
        raise KeyFileError(
            f"{signing_key} is not there; set LETHE_SIGNING_KEY_FILE or LETHE_DATA_DIR to the key's "
            "place."
        )
    key = Signer.load(signing_key, origin).public_key_pem
    return check_log(session, key, origin, older)


def check_log(
    session: Session, public_key_pem: str, origin: str, older_head: str | None = None
) -> LogReport:
    """Check every leaf, hash and signed tree head of the log; must be the transaction's first call.

    Args:
        session: a transaction that has read nothing yet.
        public_key_pem: the log's Ed25519 public key, PEM.
        origin: the name of the log.
        older_head: a tree head (signed note) that was kept elsewhere, if there is one.
    """
    # One snapshot for all queries: the log may grow meanwhile.
    session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
    heads = {head.size: head for head in session.scalars(select(tables.TreeHead))}
    size = session.scalar(select(tables.LogState.size)) or 0
    notes = [head.note for head in heads.values()] + [older_head or ""]
    walk = _Walk({size for note in notes for size in _size_of(note)})
    walked = walk.through(session, size)
    for at, stored in sorted(heads.items()):
        name = f"The stored tree head of {at} leaves"
        try:
            signed = verify_note(stored.note, public_key_pem, origin)
        except NoteError as error:
            walk.faults["signature"].append(f"{name} does not hold: {error}")
            continue
        walk.compare(name, signed)
        if (signed.size, signed.root) != (at, bytes(stored.root)):
            walk.faults["row"].append(
                f"{name} was signed for another size or root than it stands for."
            )
    foreign = None
    if older_head is not None:
        try:
            kept = verify_note(older_head, public_key_pem, origin)
        except NoteError as error:
            foreign = str(error)
        else:
            walk.compare("The tree head that you kept", kept)
    return LogReport(walked, len(heads), tuple(walk.sentences()), foreign)


def _size_of(note: str) -> list[int]:
    """Return the size that a note names, if it names one; its signature is not checked yet."""
    lines = note.split("\n")
    return [int(lines[1])] if len(lines) > 1 and lines[1].isdecimal() else []


@dataclass
class _Walk:
    """Builds the tree again, leaf by leaf, and collects what differs.

    Attributes:
        wanted: sizes whose roots are compared.
        roots: the roots that the leaves lead to, at these sizes.
        faults: sentences, by what kind of thing is at fault.
    """

    wanted: set[int]
    roots: dict[int, bytes] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    _subtrees: list[tuple[int, bytes]] = field(default_factory=list)  # level and hash, left first

    def through(self, session: Session, size: int) -> int:
        """Go through the leaves, as far as none is missing; returns how many these are."""
        if 0 in self.wanted:
            self.roots[0] = merkle.EMPTY_ROOT
        count = 0
        for leaves in _batches(session):
            for leaf in leaves:
                if leaf.leaf_index != count:
                    self.faults["gap"].append(
                        f"Leaf {count} is missing: after it comes leaf {leaf.leaf_index}, and "
                        "nothing from there on can be checked."
                    )
                    return count
                count += 1
            self._compare_nodes(session, leaves)
        if count != size:
            self.faults["size"].append(
                f"The log should have {size} leaves, and has {count}: leaves were removed or added "
                "at its end."
            )
        return count

    def compare(self, name: str, signed: TreeHead) -> None:
        """Compare the signed head that a sentence calls ``name`` with the leaves."""
        if signed.size not in self.roots:
            self.faults["reach"].append(
                f"{name} was signed for {signed.size} leaves, and so many are not there: leaves were "
                "removed."
            )
        elif self.roots[signed.size] != signed.root:
            self.faults["root"].append(
                f"{name} was signed for other leaves than those that are there now."
            )

    def sentences(self) -> Iterator[str]:
        """Give the first fault of each kind, and how many more there are of it."""
        for found in self.faults.values():
            more = f" (and {len(found) - 1} more of the kind)" if len(found) > 1 else ""
            yield found[0] + more

    def _compare_nodes(self, session: Session, leaves: Sequence[_Leaf]) -> None:
        made: dict[tuple[int, int], bytes] = {}
        for leaf in leaves:
            made |= self._grow(leaf)
        stored = log.nodes(session, list(made))
        for leaf in leaves:
            self._compare_leaf(leaf, made[0, leaf.leaf_index], stored.get((0, leaf.leaf_index)))
        for (level, position), computed in made.items():
            if level and stored.get((level, position)) != computed:
                self.faults["node"].append(
                    f"The stored hash of the tree at level {level}, position {position}, is not "
                    "that of the leaves below it."
                )

    def _grow(self, leaf: _Leaf) -> dict[tuple[int, int], bytes]:
        """Add a leaf; returns the hashes of the complete subtrees that end with it."""
        level, position = 0, leaf.leaf_index
        computed = merkle.leaf_hash(bytes(leaf.body))
        made = {(0, position): computed}
        while self._subtrees and self._subtrees[-1][0] == level:
            computed = merkle.node_hash(self._subtrees.pop()[1], computed)
            level, position = level + 1, position >> 1
            made[level, position] = computed
        self._subtrees.append((level, computed))
        size = leaf.leaf_index + 1
        if size in self.wanted:
            self.roots[size] = merkle.fold([one for _, one in self._subtrees])
        return made

    def _compare_leaf(self, leaf: _Leaf, computed: bytes, in_tree: bytes | None) -> None:
        name = f"Leaf {leaf.leaf_index}"
        if bytes(leaf.leaf_hash) != computed:
            self.faults["leaf"].append(
                f"{name} was changed: its content does not have the hash that is stored beside it."
            )
        elif in_tree != computed:
            self.faults["place"].append(
                f"{name} is not the one that the tree has in its place: it was moved, or changed "
                "together with its hash."
            )
        said = _said(bytes(leaf.body))
        if said != (leaf.kind, leaf.subject):
            self.faults["filed"].append(
                f"{name} is filed as {leaf.kind} about {leaf.subject}, and records {said[0]} about "
                f"{said[1]}."
            )


def _batches(session: Session) -> Iterator[Sequence[_Leaf]]:
    leaf = tables.Leaf
    columns = (leaf.leaf_index, leaf.kind, leaf.subject, leaf.body, leaf.leaf_hash)
    query = select(*columns).order_by(leaf.leaf_index)
    yield from session.execute(query, execution_options={"yield_per": _BATCH}).partitions()


def _said(body: bytes) -> tuple[str, str]:
    """Return kind and subject that a leaf's content names."""
    try:
        content = json.loads(body)
        kind = str(content["kind"])
        return kind, str(content[_SUBJECT_FIELDS[kind]])
    except (ValueError, KeyError, TypeError):
        return "nothing that is known", "nobody"
