"""Holding a dataset and asking about it in one message to the server."""

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.rows import dict_row
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

# Rows that only refer to the dataset are not kept waiting.
HOLD = "SELECT 1 FROM datasets WHERE dataset_id = %(dataset_id)s FOR NO KEY UPDATE"


def hold_and_ask(
    session: Session, dataset_id: str, question: str, values: Mapping[str, Any]
) -> dict[str, Any]:
    """Hold a dataset until the transaction ends, and return the one row of ``question``.

    They are two statements, each with a snapshot of its own: the second sees what was committed while
    the first waited. Sent together, they cost one round trip, and the dataset, which callers wait for
    in turn, is not held while the second is on its way.

    Args:
        session: a transaction.
        dataset_id: the dataset; there need not be one.
        question: in the notation of psycopg, ``%(name)s``.
        values: of the question.
    """
    connection = session.connection().connection.driver_connection
    if not isinstance(connection, Connection):
        raise TypeError(f"Expected a connection of psycopg 3; got {type(connection).__name__}.")
    try:
        with (
            connection.pipeline(),
            connection.cursor() as hold,
            connection.cursor(row_factory=dict_row) as asked,
        ):
            hold.execute(HOLD, {"dataset_id": dataset_id})
            asked.execute(question.encode(), values)
            return asked.fetchone() or {}
    except psycopg.OperationalError as error:
        raise OperationalError(None, None, error) from error
