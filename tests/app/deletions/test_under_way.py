"""Finding the few requests that are under way among very many that have ended."""

from typing import Any

from sqlalchemy import event, text

from app.core.db import Database
from app.deletions.completion import settle_left_behind
from tests.app.deletions.deletion_rows import Rows

_MANY = text(
    """
    INSERT INTO deletion_requests (request_id, dataset_id, status, scope, objective, method, update,
        params, pair_count, named_total, already_forgotten_count, not_trained_count, salt,
        submitted_by, deadline)
    SELECT 'req_' || number, :dataset_id, CASE WHEN number % 1000 = 0 THEN 'pending' ELSE 'completed' END,
        'association', 'decouple', 'multidelete', 'all', '{}', 1, number, 0, 0,
        decode(repeat('00', 32), 'hex'), 'tok', now()
    FROM generate_series(1, 20000) AS number
    """
)


def test_the_reaper_finds_requests_under_way_by_their_index(rows: Rows, database: Database) -> None:
    with database.transaction() as session:
        session.execute(_MANY, {"dataset_id": rows.dataset_id})
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE deletion_requests"))
    plan = _plan_of_the_search(rows, database)
    scans = [node for node in _nodes(plan) if node.get("Relation Name") == "deletion_requests"]
    assert [node.get("Index Name") for node in scans] == ["ix_deletion_requests_under_way"]


def _plan_of_the_search(rows: Rows, database: Database) -> dict[str, Any]:
    """Return the plan that the service gets: its own statement, prepared and planned generically."""
    said: list[tuple[str, Any]] = []

    def note(_c: Any, _u: Any, statement: str, values: Any, *_: Any) -> None:
        said.append((statement, values))

    event.listen(database.engine, "before_cursor_execute", note)
    with database.transaction() as session:
        settle_left_behind(session, rows.signer)
        session.rollback()
    event.remove(database.engine, "before_cursor_execute", note)
    statement, values = next(one for one in said if "deletion_requests.status" in one[0])
    names = list(values)
    numbered = statement % {name: f"${place}" for place, name in enumerate(names, 1)}
    with database.engine.connect() as connection:
        connection.exec_driver_sql(f"PREPARE search AS {numbered}")
        given = ", ".join(f"'{values[name]}'" for name in names)
        explain = f"EXPLAIN (FORMAT JSON) EXECUTE search ({given})"
        return dict(connection.exec_driver_sql(explain).scalar_one()[0]["Plan"])


def _nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for part in plan.get("Plans", []) for node in _nodes(part))]
