"""Several statements in one message to the server.

The pipeline of psycopg writes each statement by itself and looks for answers in between, which lets
other threads of the process in each time. Here libpq sends all of them at once, and the caller waits
once: callers take turns at what such statements lock.
"""

import re
import select
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import count
from typing import Any, cast

import psycopg
from psycopg import Connection, abc
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import InvalidSqlStatementName, error_from_result
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

Statement = tuple[str, Mapping[str, Any]]
"""SQL in the notation of psycopg, ``%(name)s``, and its values; the server infers their types."""
_PREPARED = "lethe_prepared"
_numbers = count()
_PLACEHOLDER = re.compile(r"%\((\w+)\)s")


def send_together(session: Session, statements: Sequence[Statement]) -> dict[str, Any]:
    """Run statements in the transaction of ``session``; return the first row of the last one, if any.

    Each has a snapshot of its own, and none runs after one that fails.

    Raises:
        DBAPIError: of the first one that fails.
    """
    pooled = session.connection().connection
    connection = pooled.driver_connection
    if not isinstance(connection, Connection):
        raise TypeError(f"Expected a connection of psycopg 3; got {type(connection).__name__}.")
    if connection.pgconn.transaction_status == TransactionStatus.IDLE:
        statements = [("BEGIN", {}), *statements]
    prepared: dict[str, bytes] = pooled.info.setdefault(_PREPARED, {})
    adapter = Transformer(connection)
    with _errors_of_sqlalchemy():
        with _pipeline(connection) as pgconn:
            new = _send(pgconn, adapter, statements, prepared)
            results = _results(pgconn)
        for result in results:
            if result.status == ExecStatus.FATAL_ERROR:
                error = error_from_result(result)
                if isinstance(error, InvalidSqlStatementName):  # somebody deallocated it
                    prepared.clear()
                raise error
    prepared.update(new)
    return _first_row(adapter, results[-1])


@contextmanager
def _errors_of_sqlalchemy() -> Iterator[None]:
    """Raise what any other statement would raise."""
    try:
        yield
    except psycopg.Error as error:
        known = DBAPIError.instance(None, None, error, psycopg.Error, hide_parameters=True)
        raise cast("DBAPIError", known) from error


@contextmanager
def _pipeline(connection: "Connection[Any]") -> Iterator[PGconn]:
    """Have libpq queue what is sent; a connection that is left amid answers is of no use any more."""
    try:
        connection.pgconn.enter_pipeline_mode()
        yield connection.pgconn
        connection.pgconn.exit_pipeline_mode()
    except BaseException:
        connection.close()
        raise


def _send(
    pgconn: PGconn,
    adapter: abc.Transformer,
    statements: Sequence[Statement],
    prepared: dict[str, bytes],
) -> dict[str, bytes]:
    """Send statements and return the names of those that were not prepared before."""
    new: dict[str, bytes] = {}
    for statement, values in statements:
        sql, names = _numbered(statement)
        name = prepared.get(statement) or new.get(statement)
        if name is None:
            # A name is never used again, since a preparation may or may not have failed.
            name = new[statement] = f"lethe_{next(_numbers)}".encode()
            pgconn.send_prepare(name, sql)
        given = [values[key] for key in names]
        pgconn.send_query_prepared(name, adapter.dump_sequence(given, [PyFormat.TEXT] * len(given)))
    pgconn.pipeline_sync()
    while pgconn.flush():  # more than the socket takes
        _wait(pgconn, select.POLLIN | select.POLLOUT)
        pgconn.consume_input()
    return new


def _results(pgconn: PGconn) -> list[PGresult]:
    """Return what the server answers, up to the end of the message."""
    results: list[PGresult] = []
    while True:
        while pgconn.is_busy():
            _wait(pgconn, select.POLLIN)
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is not None:
            if result.status == ExecStatus.PIPELINE_SYNC:
                return results
            results.append(result)
        elif pgconn.status == ConnStatus.BAD:
            raise psycopg.OperationalError("the connection to the server was lost")


def _wait(pgconn: PGconn, events: int) -> None:
    ready = select.poll()
    ready.register(pgconn.socket, events)
    ready.poll()


def _first_row(adapter: abc.Transformer, result: PGresult) -> dict[str, Any]:
    if not result.ntuples:
        return {}
    adapter.set_pgresult(result)
    names = [(result.fname(column) or b"").decode() for column in range(result.nfields)]
    return dict(zip(names, adapter.load_row(0, tuple), strict=True))


@lru_cache
def _numbered(statement: str) -> tuple[bytes, list[str]]:
    """Return a statement with ``$1``, ``$2``, ... for its names, and the names in this order."""
    names = list(dict.fromkeys(_PLACEHOLDER.findall(statement)))
    sql = _PLACEHOLDER.sub(lambda found: f"${names.index(found[1]) + 1}", statement)
    return sql.encode(), names
