"""A superuser of the database changes the log, with its triggers off: every way of it is found."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.core.db import Database
from app.ledger import certificate, integrity, log, merkle
from app.ledger.certificate import CertificateData
from app.ledger.errors import LogCorrupt
from app.ledger.integrity import LogReport, check_log
from app.ledger.records import JobStarted, Record, RequestCompleted, RequestWithdrawn
from app.ledger.tree_head import Signer, TreeHead
from app.ledger.verify import verify_certificate

LEAVES = 7
TABLES = ("ledger_leaves", "ledger_nodes", "ledger_tree_heads", "ledger_state")


class Tampered:
    """A log of seven leaves, the fourth of them a certificate's, with heads of 3, 4 and 7 leaves."""

    def __init__(self, database: Database, signer: Signer, data: CertificateData) -> None:
        self.database = database
        self.signer = signer
        with database.transaction() as session:
            log.append_all(session, [note(number) for number in range(3)])
            self.older = log.head(session, signer)
        with database.transaction() as session:
            self.bundle = certificate.issue(session, signer, data)
        with database.transaction() as session:
            log.append_all(session, [note(number) for number in range(4, LEAVES)])
            log.head(session, signer)

    def check(self, older: TreeHead | None = None, key: str | None = None) -> LogReport:
        """Check the whole log."""
        with self.database.transaction() as session:
            note = older.note if older else None
            pem = key or self.signer.public_key_pem
            return check_log(session, pem, self.signer.origin, note)

    def fault(self) -> str:
        """Return the one fault that is found."""
        report = self.check()
        assert not report.ok
        assert len(report.faults) == 1, report.faults
        return report.faults[0]

    def certificate_failure(self) -> str | None:
        """Fetch the certificate again, as its holder would, and return what `lethe verify` says."""
        with self.database.transaction() as session:
            bundle = certificate.refreshed(session, self.signer, self.bundle, self.older.size)
        key = self.signer.public_key_pem
        return verify_certificate(bundle, key, self.older.note).failure

    def change(self, *statements: str, **values: Any) -> None:
        """Do what only a superuser can: switch the guards off, and change the tables."""
        with self.database.transaction() as session:
            for table in TABLES:
                session.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
                session.execute(text(f"GRANT ALL ON {table} TO CURRENT_USER"))
            for statement in statements:
                session.execute(text(statement), values)


def note(number: int) -> RequestWithdrawn:
    return RequestWithdrawn(request_id=f"req_w{number}")


@pytest.fixture
def tampered(database: Database, signer: Signer, certificate_data: CertificateData) -> Tampered:
    return Tampered(database, signer, certificate_data)


def put(record: Record) -> dict[str, Any]:
    """Return what a leaf with this record would hold."""
    return {"body": record.body(), "hash": merkle.leaf_hash(record.body())}


def test_an_untouched_log_holds_and_goes_on_from_a_head_that_was_kept(tampered: Tampered) -> None:
    report = tampered.check(tampered.older)
    assert report == LogReport(LEAVES, 3, ())
    assert report.ok
    assert tampered.certificate_failure() is None


def test_a_new_log_holds(database: Database, signer: Signer) -> None:
    with database.transaction() as session:
        log.head(session, signer)
    with database.transaction() as session:
        report = check_log(session, signer.public_key_pem, signer.origin)
    assert report == LogReport(0, 1, ())


def test_a_log_of_several_batches_holds(
    database: Database, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integrity, "_BATCH", 4)
    for number in range(11):
        with database.transaction() as session:
            log.append(session, note(number))
            log.head(session, signer)
    with database.transaction() as session:
        report = check_log(session, signer.public_key_pem, signer.origin)
    assert report == LogReport(11, 11, ())


def test_leaves_that_come_while_it_is_checked_are_no_fault(
    tampered: Tampered, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = integrity._Walk.through

    def appending(*arguments: Any) -> int:
        with tampered.database.transaction() as session:
            log.append_all(session, [note(number) for number in range(50, 55)])
            log.head(session, tampered.signer)
        return walk(*arguments)

    monkeypatch.setattr(integrity._Walk, "through", appending)
    assert tampered.check() == LogReport(LEAVES, 3, ())


def test_a_changed_leaf_is_named(tampered: Tampered) -> None:
    other = RequestCompleted(request_id="req_1", statement_sha256="00" * 32)
    tampered.change("UPDATE ledger_leaves SET body = :body WHERE leaf_index = 3", **put(other))
    report = tampered.check()
    assert report.faults[0] == (
        "Leaf 3 was changed: its content does not have the hash that is stored beside it."
    )
    assert "was signed for other leaves than those that are there now" in " ".join(report.faults)
    assert tampered.certificate_failure() == (
        "The leaf records another statement than the certificate's."
    )


def test_a_leaf_that_was_changed_with_its_hash_is_named(tampered: Tampered) -> None:
    tampered.change(
        "UPDATE ledger_leaves SET body = :body, leaf_hash = :hash WHERE leaf_index = 1",
        **put(note(99)),
    )
    faults = tampered.check().faults
    assert faults[0].startswith("Leaf 1 is not the one that the tree has in its place")
    assert "Leaf 1 is filed as request_withdrawn about req_w1, and records" in " ".join(faults)


def test_a_time_that_was_changed_in_a_certificates_leaf_fails_the_certificate(
    tampered: Tampered,
) -> None:
    tampered.change(
        "UPDATE ledger_leaves SET body = convert_to(replace(convert_from(body, 'UTF8'), :now, :then),"
        " 'UTF8') WHERE leaf_index = 3",
        now='"recorded_time":"2',
        then='"recorded_time":"1',
    )
    assert tampered.check().faults[0].startswith("Leaf 3 was changed")
    assert tampered.certificate_failure() == (
        "The inclusion proof does not lead to the root of the tree head."
    )


def test_a_removed_leaf_is_named(tampered: Tampered) -> None:
    tampered.change("DELETE FROM ledger_leaves WHERE leaf_index = 2")
    faults = tampered.check().faults
    assert faults[0].startswith("Leaf 2 is missing: after it comes leaf 3")
    assert "leaves were removed" in faults[1]


def test_leaves_that_were_cut_off_are_missed_by_the_heads_that_were_signed(
    tampered: Tampered,
) -> None:
    tampered.change(
        "DELETE FROM ledger_leaves WHERE leaf_index >= 5",
        "DELETE FROM ledger_nodes WHERE (position + 1) << level > 5",
        "UPDATE ledger_state SET size = 5",
    )
    assert tampered.fault() == (
        "The stored tree head of 7 leaves was signed for 7 leaves, and so many are not there: "
        "leaves were removed."
    )


def test_leaves_that_were_cut_off_with_their_heads_are_missed_by_a_head_that_was_kept(
    tampered: Tampered, signer: Signer
) -> None:
    with tampered.database.transaction() as session:
        kept = log.head(session, signer)
    tampered.change(
        "DELETE FROM ledger_leaves WHERE leaf_index >= 5",
        "DELETE FROM ledger_nodes WHERE (position + 1) << level > 5",
        "DELETE FROM ledger_tree_heads WHERE size > 5",
        "UPDATE ledger_state SET size = 5",
    )
    assert tampered.check().ok
    faults = tampered.check(kept).faults
    assert faults[0].startswith("The tree head that you kept was signed for 7 leaves")


def test_a_leaf_beyond_the_size_of_the_log_is_found(tampered: Tampered) -> None:
    tampered.change(
        "INSERT INTO ledger_leaves (leaf_index, kind, subject, body, leaf_hash)"
        " VALUES (7, 'request_withdrawn', 'req_w9', :body, :hash)",
        **put(note(9)),
    )
    faults = tampered.check().faults
    assert "The log should have 7 leaves, and has 8" in " ".join(faults)


def test_leaves_that_changed_places_are_named(tampered: Tampered) -> None:
    swap = "UPDATE ledger_leaves SET leaf_index = {} WHERE leaf_index = {}"
    tampered.change(swap.format(-1, 4), swap.format(4, 5), swap.format(5, -1))
    report = tampered.check()
    assert report.faults[0].startswith("Leaf 4 is not the one that the tree has in its place")
    assert report.faults[0].endswith("(and 1 more of the kind)")


def test_the_leaf_of_a_certificate_that_changed_places_fails_the_certificate(
    tampered: Tampered,
) -> None:
    swap = "UPDATE ledger_leaves SET leaf_index = {} WHERE leaf_index = {}"
    tampered.change(swap.format(-1, 2), swap.format(2, 3), swap.format(3, -1))
    assert tampered.certificate_failure() == (
        "The leaf does not record the completion of a request."
    )


def test_a_changed_hash_of_the_tree_is_found_by_every_check(tampered: Tampered) -> None:
    tampered.change(
        "UPDATE ledger_nodes SET hash = :hash WHERE level = 1 AND position = 0", **put(note(9))
    )
    assert tampered.fault().startswith(
        "The stored hash of the tree at level 1, position 0, is not that of the leaves below it."
    )
    failure = tampered.certificate_failure()
    assert failure == "The inclusion proof does not lead to the root of the tree head."


def test_a_removed_hash_of_the_tree_is_found(tampered: Tampered, signer: Signer) -> None:
    tampered.change("DELETE FROM ledger_nodes WHERE level = 2")
    assert "level 2, position 0" in tampered.fault()
    with tampered.database.transaction() as session, pytest.raises(LogCorrupt, match="lacks"):
        log.head(session, signer)


@pytest.fixture
def corrupt(tampered: Tampered, signer: Signer) -> Iterator[Callable[[], str]]:
    """Give a function that asks for the head of the log and returns what the service answers."""

    def ask() -> str:
        with tampered.database.transaction() as session, pytest.raises(LogCorrupt) as raised:
            log.head(session, signer)
        return raised.value.detail

    return ask


def test_a_changed_root_in_a_tree_head_breaks_its_signature(
    tampered: Tampered, corrupt: Callable[[], str]
) -> None:
    other = tampered.signer.sign(LEAVES, bytes(32)).note
    mine = "UPDATE ledger_tree_heads SET note = replace(note, split_part(note, E'\\n', 3), :root)"
    tampered.change(f"{mine} WHERE size = 7", root=other.split("\n")[2])
    assert tampered.fault() == (
        "The stored tree head of 7 leaves does not hold: "
        "The signature of the tree head is not valid."
    )
    assert "does not verify with the signing key" in corrupt()


def test_a_tree_head_signed_for_another_root_is_found(
    tampered: Tampered, corrupt: Callable[[], str]
) -> None:
    other = tampered.signer.sign(LEAVES, bytes(32))
    tampered.change(
        "UPDATE ledger_tree_heads SET note = :note, root = :root WHERE size = 7",
        note=other.note,
        root=other.root,
    )
    assert tampered.fault() == (
        "The stored tree head of 7 leaves was signed for other leaves than those that are there "
        "now."
    )
    assert "is not the one that was signed before" in corrupt()


def test_a_tree_head_that_stands_for_another_size_is_found(tampered: Tampered) -> None:
    tampered.change(
        "UPDATE ledger_tree_heads SET note = :note WHERE size = 7", note=tampered.older.note
    )
    assert "was signed for another size or root than it stands for" in tampered.fault()


def test_a_forged_signature_is_found(tampered: Tampered, corrupt: Callable[[], str]) -> None:
    stranger = Signer(Ed25519PrivateKey.generate(), tampered.signer.origin)
    with tampered.database.transaction() as session:
        root = log.root(session, LEAVES)
    tampered.change(
        "UPDATE ledger_tree_heads SET note = :note WHERE size = 7",
        note=stranger.sign(LEAVES, root).note,
    )
    assert tampered.fault() == (
        "The stored tree head of 7 leaves does not hold: "
        f"The tree head bears no signature by this key ({tampered.signer.key_id}), but by "
        f"{stranger.key_id}."
    )
    assert "does not verify with the signing key" in corrupt()


def _rewrite(session: Session, signer: Signer) -> None:
    """Write another log in place of the one that is there, and sign it with its own key."""
    session.execute(text("DELETE FROM ledger_leaves"))
    session.execute(text("DELETE FROM ledger_nodes"))
    session.execute(text("DELETE FROM ledger_tree_heads"))
    session.execute(text("UPDATE ledger_state SET size = 0"))
    log.append_all(session, [note(number) for number in range(100, 100 + LEAVES)])
    log.head(session, signer)


def test_a_log_rewritten_with_its_own_key_is_found_by_a_head_that_was_kept(
    tampered: Tampered, signer: Signer
) -> None:
    tampered.change()
    with tampered.database.transaction() as session:
        _rewrite(session, signer)
    assert tampered.check().ok
    assert tampered.check(tampered.older).faults == (
        "The tree head that you kept was signed for other leaves than those that are there now.",
    )


def test_a_head_kept_from_another_log_is_named(tampered: Tampered) -> None:
    stranger = Signer(Ed25519PrivateKey.generate(), tampered.signer.origin)
    report = tampered.check(stranger.sign(3, bytes(32)))
    assert report.faults == ()  # of the log itself
    assert not report.ok
    title, kept = report.text().split("\n")
    assert title.startswith(
        "NOT VERIFIED: the log holds by itself, and the tree head that you kept is none"
    )
    assert "backup" not in title
    assert kept == (
        "- The tree head that you kept: The tree head bears no signature by this key "
        f"({tampered.signer.key_id}), but by {stranger.key_id}."
    )


def test_a_log_that_was_changed_is_told_first_beside_a_head_of_another_log(
    tampered: Tampered,
) -> None:
    tampered.change("UPDATE ledger_leaves SET subject = 'req_w9' WHERE leaf_index = 0")
    stranger = Signer(Ed25519PrivateKey.generate(), tampered.signer.origin)
    title, *faults, kept = tampered.check(stranger.sign(3, bytes(32))).text().split("\n")
    assert title.startswith("NOT VERIFIED: the log was changed. Restore it from a backup")
    assert faults
    assert kept.startswith("- The tree head that you kept: ")


def test_a_leaf_that_is_filed_under_another_name_is_found(tampered: Tampered) -> None:
    tampered.change("UPDATE ledger_leaves SET subject = 'req_w9' WHERE leaf_index = 0")
    assert tampered.fault() == (
        "Leaf 0 is filed as request_withdrawn about req_w9, and records request_withdrawn about "
        "req_w0."
    )


def test_every_kind_of_leaf_is_filed_by_what_it_says() -> None:
    assert integrity._SUBJECT_FIELDS[JobStarted.kind] == "job_id"
    assert len(integrity._SUBJECT_FIELDS) == len(Record.__subclasses__())
