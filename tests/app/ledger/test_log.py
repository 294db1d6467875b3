"""The log in a real PostgreSQL: appending, heads, proofs, and that nothing can be changed."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, make_url, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.core.db import Database
from app.ledger import log, merkle, tables
from app.ledger.errors import LogCorrupt, NoSuchLeaf, NoSuchSize
from app.ledger.records import RequestWithdrawn
from app.ledger.tree_head import Signer, TreeHead, verify_note


def note(number: int) -> RequestWithdrawn:
    return RequestWithdrawn(request_id=f"req_{number}")


def fill(database: Database, count: int) -> list[int]:
    with database.transaction() as session:
        return log.append_all(session, [note(number) for number in range(count)])


def leaf_hashes(session: Session) -> list[bytes]:
    bodies = session.scalars(select(tables.Leaf.body).order_by(tables.Leaf.leaf_index))
    return [merkle.leaf_hash(body) for body in bodies]


def test_a_new_log_is_empty_and_its_head_is_signed(database: Database, signer: Signer) -> None:
    with database.transaction() as session:
        head = log.head(session, signer)
    assert (head.size, head.root) == (0, merkle.EMPTY_ROOT)


def test_leaves_are_stored_to_the_byte_and_counted_from_zero(database: Database) -> None:
    records = [note(number) for number in range(3)]
    with database.transaction() as session:
        assert log.append_all(session, records) == [0, 1, 2]
    with database.transaction() as session:
        found = log.entries(session, 1, 10)
        assert [leaf.leaf_index for leaf in found] == [1, 2]
        assert [leaf.body for leaf in found] == [one.body() for one in records[1:]]
        assert [leaf.subject for leaf in found] == ["req_1", "req_2"]
        assert [leaf.leaf_hash for leaf in found] == leaf_hashes(session)[1:]


def test_stored_roots_of_every_size_are_those_of_the_definition(database: Database) -> None:
    fill(database, 33)
    with database.transaction() as session:
        hashes = leaf_hashes(session)
        for size in range(34):
            assert log.root(session, size) == merkle.root_hash(hashes[:size])


def test_every_inclusion_proof_verifies(database: Database) -> None:
    fill(database, 21)
    with database.transaction() as session:
        hashes = leaf_hashes(session)
        for size in range(1, 22):
            root = log.root(session, size)
            for leaf_index in range(size):
                proof = log.inclusion(session, leaf_index, size)
                merkle.verify_inclusion(leaf_index, size, hashes[leaf_index], proof, root)


def test_consistency_holds_between_any_two_sizes(database: Database) -> None:
    fill(database, 21)
    with database.transaction() as session:
        roots = [log.root(session, size) for size in range(22)]
        for second in range(22):
            for first in range(second + 1):
                proof = log.consistency(session, first, second)
                merkle.verify_consistency(first, second, roots[first], roots[second], proof)


def test_concurrent_appenders_get_distinct_consecutive_indices(
    database: Database, signer: Signer
) -> None:
    def work(worker: int) -> tuple[list[int], list[TreeHead]]:
        indices, heads = [], []
        for number in range(10):
            with database.transaction() as session:
                indices.append(log.append(session, note(worker * 100 + number)))
                heads.append(log.head(session, signer))
        return indices, heads

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(work, range(8)))
    assert sorted(index for indices, _ in done for index in indices) == list(range(80))
    with database.transaction() as session:
        assert log.size(session) == 80
        hashes = leaf_hashes(session)
    heads = [head for _, made in done for head in made]
    assert sorted(head.size for head in heads) == list(range(1, 81))
    for head in heads:
        assert verify_note(head.note, signer.public_key_pem, signer.origin) == head
        assert head.root == merkle.root_hash(hashes[: head.size])


def test_readers_see_a_consistent_log_while_others_append(
    database: Database, signer: Signer
) -> None:
    def write(worker: int) -> None:
        for number in range(15):
            with database.transaction() as session:
                log.append(session, note(worker * 100 + number))

    def read(_: int) -> list[TreeHead]:
        heads = []
        for _ in range(15):
            with database.transaction() as session:
                heads.append(log.head(session, signer))
        return heads

    with ThreadPoolExecutor(6) as pool:
        writing = [pool.submit(write, worker) for worker in range(3)]
        reading = [pool.submit(read, worker) for worker in range(3)]
        heads = [head for future in reading for head in future.result()]
        for future in writing:
            future.result()
    with database.transaction() as session:
        hashes = leaf_hashes(session)
    assert all(head.root == merkle.root_hash(hashes[: head.size]) for head in heads)


def test_a_transaction_that_rolls_back_leaves_no_leaf(database: Database) -> None:
    class GivenUpError(Exception):
        pass

    def fail_after_two_leaves() -> None:
        with database.transaction() as session:
            log.append_all(session, [note(1), note(2)])
            raise GivenUpError

    fill(database, 3)
    with pytest.raises(GivenUpError):
        fail_after_two_leaves()
    with database.transaction() as session:
        assert log.size(session) == 3
        assert len(log.entries(session, 0, 10)) == 3
        assert session.scalar(text("SELECT count(*) FROM ledger_nodes")) == 4
        assert log.append(session, note(3)) == 3


def test_a_backend_that_dies_before_the_commit_leaves_no_leaf(database: Database) -> None:
    def die() -> None:
        with database.transaction() as session:
            log.append(session, note(1))
            backend = session.scalar(text("SELECT pg_backend_pid()"))
            with database.engine.connect() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": backend})

    fill(database, 2)
    with pytest.raises(DBAPIError):
        die()
    assert fill(database, 1) == [2]


@pytest.fixture
def durable(database_url: str) -> Iterator[Database]:
    """Give a database whose commits wait for the disk, whatever the server of the tests does."""
    url = make_url(database_url).update_query_dict({"options": "-c synchronous_commit=on"})
    database = Database(url.render_as_string(hide_password=False))
    yield database
    database.dispose()


def test_a_quick_append_is_on_disk_when_its_transaction_is_over(durable: Database) -> None:
    flushed = text("SELECT pg_current_wal_flush_lsn() > CAST(:lsn AS pg_lsn)")
    for number in range(5):
        with durable.transaction() as session:
            session.execute(text("SELECT pg_logical_emit_message(true, 'test', 'before')"))
            written = session.scalar(text("SELECT pg_current_wal_insert_lsn()::text"))
            log.append_quickly(session, note(number))
        with durable.transaction() as session:
            assert session.scalar(flushed, {"lsn": written})
            assert session.scalar(text("SHOW synchronous_commit")) == "on"
            assert log.size(session) == number + 1


def test_nothing_is_appended_or_signed_after_a_quick_append(
    database: Database, signer: Signer
) -> None:
    for follow in (
        lambda session: log.append(session, note(2)),
        lambda session: log.append_quickly(session, note(2)),
        lambda session: log.head(session, signer),
    ):
        with pytest.raises(RuntimeError, match="end"), database.transaction() as session:
            log.append_quickly(session, note(1))
            follow(session)
    with database.transaction() as session:
        assert log.size(session) == 0


def test_a_quick_append_that_fails_takes_its_transaction_along(database: Database) -> None:
    with database.transaction() as session:
        session.execute(text("CREATE TABLE beside (number int)"))
    with pytest.raises(DBAPIError), database.transaction() as session:
        session.execute(text("INSERT INTO beside VALUES (1)"))
        log.append_quickly(session, note(1))
        backend = session.scalar(text("SELECT pg_backend_pid()"))
        with database.transaction() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": backend})
    with database.transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM beside")) == 0
        assert log.size(session) == 0


def test_quick_and_plain_appenders_share_one_log(database: Database) -> None:
    def work(worker: int) -> None:
        append = log.append_quickly if worker % 2 else log.append
        for number in range(10):
            with database.transaction() as session:
                append(session, note(worker * 100 + number))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    with database.transaction() as session:
        assert log.size(session) == 60
        assert log.root(session, 60) == merkle.root_hash(leaf_hashes(session))


CHANGES = [
    "UPDATE ledger_leaves SET body = 'forged'",
    "UPDATE ledger_leaves SET body = body WHERE false",
    "DELETE FROM ledger_leaves",
    "TRUNCATE ledger_leaves",
    "UPDATE ledger_nodes SET hash = '\\x00'",
    "DELETE FROM ledger_nodes WHERE level = 0",
    "TRUNCATE ledger_nodes",
    "UPDATE ledger_tree_heads SET note = ''",
    "DELETE FROM ledger_tree_heads",
    "TRUNCATE ledger_tree_heads",
    "DELETE FROM ledger_state",
    "TRUNCATE ledger_state",
    "UPDATE ledger_state SET size = 0",
    "UPDATE ledger_state SET size = size",
    "UPDATE ledger_state SET size = size + 2",
    "INSERT INTO ledger_leaves SELECT * FROM ledger_leaves LIMIT 1",
    "INSERT INTO ledger_state (singleton, size) VALUES (false, 0)",
]


def change(connection: Connection, statement: str, *, as_replica: bool) -> None:
    if as_replica:
        connection.execute(text("SET session_replication_role = replica"))
    connection.execute(text(statement))


@pytest.mark.parametrize("as_replica", [False, True], ids=["as usual", "as a replica"])
@pytest.mark.parametrize("statement", CHANGES)
def test_nothing_in_the_log_can_be_changed_or_removed(
    database: Database, signer: Signer, statement: str, *, as_replica: bool
) -> None:
    fill(database, 3)
    with database.transaction() as session:
        before = log.head(session, signer)
    # Superusers meet the triggers, which no setting turns off; others meet the grants first.
    refusals = r"append-only|one at a time|violates|permission denied"
    with database.engine.connect() as connection:
        with pytest.raises(DBAPIError, match=refusals):
            change(connection, statement, as_replica=as_replica)
        connection.rollback()
    with database.transaction() as session:
        assert log.head(session, signer) == before


def test_the_owner_of_the_tables_has_no_grant_to_change_them(database: Database) -> None:
    granted = text(
        "SELECT privilege_type FROM information_schema.table_privileges WHERE table_name IN"
        " ('ledger_leaves', 'ledger_nodes', 'ledger_tree_heads')"
    )
    with database.transaction() as session:
        found = set(session.scalars(granted))
    assert {"INSERT", "SELECT"} <= found
    assert not found & {"UPDATE", "DELETE", "TRUNCATE"}


def test_a_size_is_signed_once_and_then_read(database: Database, signer: Signer) -> None:
    fill(database, 5)
    heads = []
    for _ in range(3):
        with database.transaction() as session:
            heads.append(log.head(session, signer))
    assert heads[0] == heads[1] == heads[2]
    with database.transaction() as session:
        assert session.scalar(text("SELECT count(*) FROM ledger_tree_heads")) == 1


def test_a_root_other_than_the_signed_one_is_reported_and_not_signed(
    database: Database, signer: Signer
) -> None:
    fill(database, 2)
    with database.transaction() as session:
        row = {"size": 2, "root": bytes(32), "note": signer.sign(2, bytes(32)).note}
        session.add(tables.TreeHead(**row))
    with database.transaction() as session, pytest.raises(LogCorrupt, match="not the one"):
        log.head(session, signer)


def test_a_head_signed_with_another_key_is_reported(database: Database, signer: Signer) -> None:
    fill(database, 2)
    with database.transaction() as session:
        log.head(session, Signer(Ed25519PrivateKey.generate(), signer.origin))
    with database.transaction() as session, pytest.raises(LogCorrupt, match="signing key"):
        log.head(session, signer)


def test_a_missing_node_is_reported(database: Database, signer: Signer) -> None:
    fill(database, 2)
    with database.transaction() as session:
        session.execute(text("ALTER TABLE ledger_nodes DISABLE TRIGGER ledger_nodes_append_only"))
        session.execute(text("GRANT DELETE ON ledger_nodes TO CURRENT_USER"))
        session.execute(text("DELETE FROM ledger_nodes WHERE level = 1"))
    with database.transaction() as session, pytest.raises(LogCorrupt, match=r"lacks .*\(1, 0\)"):
        log.head(session, signer)


def test_proofs_outside_of_the_log_are_refused(database: Database) -> None:
    fill(database, 3)
    with database.transaction() as session:
        with pytest.raises(NoSuchSize, match="has 3 leaves now"):
            log.inclusion(session, 0, 4)
        with pytest.raises(NoSuchLeaf, match="no leaf 3"):
            log.inclusion(session, 3, 3)
        with pytest.raises(NoSuchSize, match="has 3 leaves now"):
            log.consistency(session, 1, 4)
        with pytest.raises(NoSuchSize, match="from 0 to 2; 3 came"):
            log.consistency(session, 3, 2)


def test_leaves_are_found_by_what_they_are_about(database: Database) -> None:
    fill(database, 5)
    with database.transaction() as session:
        found = log.leaves_about(session, ["req_3", "req_1", "job_9"], ["request_withdrawn"])
        assert [leaf.subject for leaf in found] == ["req_1", "req_3"]
        assert log.leaves_about(session, ["req_3"], ["job_started"]) == []
