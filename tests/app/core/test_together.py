"""Statements that are sent in one message: each sees what is committed, all of them happen or none."""

import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from app.core.db import Database, Finale, end_with
from app.core.together import send_together

COUNT = "SELECT count(*) AS count FROM marks"
ADD = "INSERT INTO marks VALUES (%(name)s, %(number)s)"


@pytest.fixture
def one(database: Database, database_url: str) -> Iterator[Database]:
    """Give a database with one connection and a table."""
    with database.transaction() as session:
        session.execute(text("CREATE TABLE marks (name text PRIMARY KEY, number int)"))
    single = Database(database_url, pool_size=1)
    yield single
    single.dispose()


def test_the_first_row_of_the_last_statement_is_returned_in_types_of_python(one: Database) -> None:
    question = (
        "SELECT %(name)s::text || '!' AS name, %(name)s::text AS again, %(numbers)s::text[] AS numbers,"
        " %(nothing)s::text AS nothing, '2026-03-01T12:00:00Z'::timestamptz - %(at)s::timestamptz AS past"
    )
    values = {"name": 'a "b" \\ %', "numbers": ["x", "y,{}"], "nothing": None}
    with one.transaction() as session:
        row = send_together(
            session,
            [("SELECT 5 AS five", {}), (question, {**values, "at": "2026-03-01T11:00:00Z"})],
        )
        assert send_together(session, [("SELECT 1 WHERE false", {})]) == {}
    assert row.pop("past").total_seconds() == 3600
    assert row == {
        "name": 'a "b" \\ %!',
        "again": 'a "b" \\ %',
        "numbers": ["x", "y,{}"],
        "nothing": None,
    }


def test_they_are_part_of_the_session_s_transaction(one: Database, database: Database) -> None:
    with one.transaction() as session:
        send_together(session, [(ADD, {"name": "a", "number": 1})])
        assert session.scalar(text(COUNT)) == 1
        session.rollback()
        session.execute(text("INSERT INTO marks VALUES ('b', 2)"))
        assert send_together(session, [(COUNT, {})]) == {"count": 1}
    with database.transaction() as session:
        assert session.scalar(text("SELECT name FROM marks")) == "b"


def test_what_was_prepared_outlives_a_rollback_after_any_number_of_other_statements(
    one: Database,
) -> None:
    for _ in range(3):
        with one.transaction() as session:
            assert send_together(session, [(COUNT, {})]) == {"count": 0}
        for _ in range(8):  # as often as a driver wants before it prepares by itself
            with one.transaction() as session:
                session.execute(text("SELECT name FROM marks WHERE number = :n"), {"n": 1})
        with one.session() as session:
            session.execute(text("SELECT 1"))
            session.rollback()


def test_a_statement_that_somebody_deallocated_is_prepared_anew_after_one_error(
    one: Database,
) -> None:
    with one.transaction() as session:
        send_together(session, [(COUNT, {})])
        session.execute(text("DEALLOCATE ALL"))
    with pytest.raises(DBAPIError, match="does not exist"), one.transaction() as session:
        send_together(session, [(COUNT, {})])
    with one.transaction() as session:
        assert send_together(session, [(COUNT, {})]) == {"count": 0}


def test_each_statement_sees_what_was_committed_while_the_one_before_it_waited(
    one: Database, database: Database
) -> None:
    lock = "SELECT pg_advisory_xact_lock(7)"
    waits = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    seen: list[dict[str, object]] = []

    def look() -> None:
        with one.transaction() as session:
            seen.append(send_together(session, [(COUNT, {}), (lock, {}), (COUNT, {})]))

    with database.transaction() as session:
        session.execute(text(lock))
        looking = threading.Thread(target=look)
        looking.start()
        while not session.scalar(waits):
            pass
        session.execute(text("INSERT INTO marks VALUES ('a', 1)"))
    looking.join(10)
    assert seen == [{"count": 1}]


def test_none_runs_after_one_that_fails_and_the_connection_stays_usable(one: Database) -> None:
    twice = [(ADD, {"name": "a", "number": number}) for number in (1, 2)]
    with pytest.raises(IntegrityError), one.transaction() as session:
        end_with(session, Finale(twice, [(ADD, {"name": "b", "number": 3})]))
    with one.transaction() as session:
        pid = session.scalar(text("SELECT pg_backend_pid()"))
        assert send_together(session, [(COUNT, {})]) == {"count": 0}
    with one.transaction() as session:
        send_together(session, twice[:1])
        assert session.scalar(text("SELECT pg_backend_pid()")) == pid


def test_a_finale_commits_before_what_comes_then(one: Database) -> None:
    with pytest.raises(IntegrityError), one.transaction() as session:
        first = (ADD, {"name": "a", "number": 1})
        end_with(session, Finale([first], [first]))
    with one.transaction() as session:
        assert session.scalar(text(COUNT)) == 1


def test_a_connection_that_breaks_is_an_error_and_is_replaced(
    one: Database, database: Database
) -> None:
    with pytest.raises(OperationalError), one.transaction() as session:
        pid = send_together(session, [("SELECT pg_backend_pid() AS pid", {})])["pid"]
        with database.transaction() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": pid})
        send_together(session, [(COUNT, {})])
    with one.transaction() as session:
        assert send_together(session, [(COUNT, {})]) == {"count": 0}


def test_a_statement_is_prepared_once_a_connection(one: Database) -> None:
    prepared = text("SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'lethe_%'")
    for _ in range(3):
        with one.transaction() as session:
            send_together(session, [(COUNT, {}), (COUNT, {})])
            assert session.scalar(prepared) == 2  # BEGIN is the other one


def test_more_than_a_socket_takes_at_once_comes_through_both_ways(one: Database) -> None:
    names = [f"pair-{number:08}" for number in range(300_000)]
    with one.transaction() as session:
        row = send_together(session, [("SELECT %(names)s::text[] AS names", {"names": names})] * 3)
    assert row["names"] == names
