"""The rules that hold between the rows of a manifest, checked by the database in a temporary table.

The database sorts on disk what does not fit into memory, so a manifest may have any size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

from psycopg import Connection, Cursor
from psycopg.rows import class_row, scalar_row

_BLOCK = 1 << 20
_CREATE = """
    CREATE TEMP TABLE manifest_rows (
        line bigint, pair_id text COLLATE "C", split text, text_id text COLLATE "C", text_digest bigint,
        reference text COLLATE "C", item_id text COLLATE "C",
        second_reference text COLLATE "C", second_item_id text COLLATE "C"
    ) ON COMMIT DROP
"""
# Each rule finds its keys by hashing first: sorting every row would take several times as long.
_CONFLICTS = """
    WITH items AS NOT MATERIALIZED (
        SELECT line, 2 * line AS place, reference, item_id FROM manifest_rows
        UNION ALL SELECT line, 2 * line + 1, second_reference, second_item_id FROM manifest_rows
        WHERE second_reference IS NOT NULL),
    repeated AS (
        SELECT pair_id, min(line) AS first FROM manifest_rows GROUP BY pair_id HAVING count(*) > 1),
    ambiguous AS (
        SELECT text_id, min(line) AS first FROM manifest_rows
        GROUP BY text_id HAVING min(text_digest) <> max(text_digest)),
    renamed AS (
        SELECT reference, min(place) AS place FROM items
        GROUP BY reference HAVING min(item_id) <> max(item_id)),
    conflicts AS (
        SELECT line, 'id' AS field, first, pair_id AS name, '' AS other
        FROM repeated JOIN manifest_rows USING (pair_id) WHERE line > first
        UNION ALL
        SELECT later.line, 'text_id', first, later.text_id, ''
        FROM ambiguous JOIN manifest_rows AS later USING (text_id)
        JOIN manifest_rows AS earlier ON earlier.line = first
        WHERE later.text_digest <> earlier.text_digest
        UNION ALL
        SELECT later.line, 'item_id', earlier.line, later.reference, earlier.item_id
        FROM renamed JOIN items AS earlier USING (reference, place)
        JOIN items AS later ON later.reference = renamed.reference
        WHERE later.item_id <> earlier.item_id),
    at_fault AS (SELECT DISTINCT ON (line) * FROM conflicts ORDER BY line, field)
    SELECT line, field, first, name, other, count(*) OVER () AS total
    FROM at_fault ORDER BY line LIMIT %s
"""
_COUNT_ITEMS = """
    SELECT count(*) FROM (
        SELECT reference FROM manifest_rows
        UNION SELECT second_reference FROM manifest_rows WHERE second_reference IS NOT NULL
    ) AS items
"""
_REGISTER = """
    INSERT INTO pairs (dataset_id, pair_id, item_id, second_item_id, text_id, split)
    SELECT %s, pair_id, item_id, second_item_id, text_id, split FROM manifest_rows
"""


@dataclass(frozen=True)
class Conflict:
    """A row that contradicts an earlier one.

    Attributes:
        line: of the row.
        field: the member at fault: ``id``, ``text_id`` or ``item_id``.
        first: line of the earlier row.
        name: the id or the reference that both rows have.
        other: the item id that the reference had before.
        total: rows in all that contradict earlier ones.
    """

    line: int
    field: str
    first: int
    name: str
    other: str
    total: int

    def report(self) -> dict[str, str | int]:
        """Return line and reason, as `ManifestInvalid` takes them."""
        return {"line": self.line, "detail": self._reason()}

    def _reason(self) -> str:
        if self.field == "id":
            return f"id: line {self.first} has it already"
        if self.field == "text_id":
            return f"text_id: {self.name!r} stands for another text on line {self.first}"
        return (
            f"item_id: the reference {self.name!r} has the item_id {self.other!r} on line "
            f"{self.first}; one item has one id"
        )


def stage(connection: Connection[object], rows: Path) -> None:
    """Copy the rows of a manifest, as `manifest.prepare` wrote them, into the temporary table."""
    with connection.cursor() as cursor:
        cursor.execute(_CREATE)
        copy_into(cursor, "COPY manifest_rows FROM STDIN", rows)


def copy_into(cursor: Cursor[Any], statement: LiteralString, rows: Path) -> None:
    """Send a file of rows to the database by a COPY."""
    with rows.open("rb") as file, cursor.copy(statement) as copy:
        while block := file.read(_BLOCK):
            copy.write(block)


def conflicts(connection: Connection[object], limit: int) -> Sequence[Conflict]:
    """Return the first ``limit`` rows that contradict earlier ones, by line."""
    with connection.cursor(row_factory=class_row(Conflict)) as cursor:
        return cursor.execute(_CONFLICTS, (limit,)).fetchall()


def count_items(connection: Connection[object]) -> int:
    """Return how many distinct images or graphs the staged rows refer to."""
    with connection.cursor(row_factory=scalar_row) as cursor:
        return int(cursor.execute(_COUNT_ITEMS).fetchone() or 0)


def register(connection: Connection[object], dataset_id: str) -> None:
    """Make the staged rows the pairs of the dataset."""
    with connection.cursor() as cursor:
        cursor.execute(_REGISTER, (dataset_id,))
