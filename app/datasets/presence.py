"""Whether the files that a manifest refers to are there, where this process sees the dataset's root.

Each folder that a reference names is listed once, into a file that the database compares with the
staged rows: a question for each of a million files would take a file server minutes. What is inside
of an archive, and so of a root that is one, only a run looks up.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from psycopg import Connection
from psycopg.rows import class_row, scalar_row

from app.core.storage import room
from app.datasets.roots import MISSING
from app.datasets.staging import copy_into

_FOLDERS_AT_ONCE = 1000
# The first part of any reference is the path of a file: of an image, an archive or a graph file.
_CREATE = """
    CREATE TEMP TABLE manifest_files ON COMMIT DROP AS
        SELECT file, rtrim(regexp_replace(file, '[^/]*$', ''), '/') AS folder,
            regexp_replace(file, '^.*/', '') AS name
        FROM (SELECT split_part(reference, '::', 1) AS file FROM manifest_rows
              UNION SELECT split_part(second_reference, '::', 1) FROM manifest_rows
              WHERE second_reference IS NOT NULL) AS files;
    CREATE TEMP TABLE seen_files (folder text COLLATE "C", name text COLLATE "C") ON COMMIT DROP
"""
_ABSENT = """
    WITH absent AS MATERIALIZED (
        SELECT file FROM manifest_files
        WHERE NOT EXISTS (SELECT 1 FROM seen_files
                          WHERE seen_files.folder = manifest_files.folder
                            AND seen_files.name = manifest_files.name)
          AND NOT EXISTS (SELECT 1 FROM seen_files
                          WHERE seen_files.folder = manifest_files.folder AND seen_files.name IS NULL)),
    at_fault AS (
        SELECT line, file FROM manifest_rows JOIN absent ON file = split_part(reference, '::', 1)
        UNION ALL
        SELECT line, file FROM manifest_rows JOIN absent ON file = split_part(second_reference, '::', 1)),
    first AS (SELECT line, min(file) AS file FROM at_fault GROUP BY line)
    SELECT line, file, count(*) OVER () AS total FROM first ORDER BY line LIMIT %s
"""


@dataclass(frozen=True)
class Absent:
    """A row whose file is not there.

    Attributes:
        line: of the row.
        file: the path below the root.
        total: rows in all whose files are not there.
    """

    line: int
    file: str
    total: int

    def report(self, root: Path) -> dict[str, str | int]:
        """Return line and reason, as `ManifestInvalid` takes them."""
        reason = f"there is no file {self.file!r} below the root"
        if os.path.islink(root / self.file):  # noqa: PTH114 - of a Path it fails on long names
            reason += ": there is a link, and links that lead out of the root are not followed"
        return {"line": self.line, "detail": reason}


def absent(
    connection: Connection[object], root: Path, folder: Path, limit: int
) -> Sequence[Absent]:
    """Return the first ``limit`` staged rows whose files are not below ``root``, by line.

    Args:
        connection: a transaction in which `staging.stage` has staged the rows.
        root: of the dataset. One that is no folder here, or an empty one, as where nothing is
            mounted, is not judged; nor is a folder below it that this process may not read.
        folder: takes the listing.
        limit: rows to return.

    Raises:
        StorageFull: there is no room for the listing.
    """
    if not _is_seen(root):
        return []
    listing = folder / "listing.copy"
    with connection.cursor(row_factory=scalar_row) as cursor:
        cursor.execute(_CREATE)
        with (
            connection.cursor("folders", row_factory=scalar_row) as folders,
            room(),
            listing.open("wb") as file,
        ):
            folders.itersize = _FOLDERS_AT_ONCE
            folders.execute("SELECT DISTINCT folder FROM manifest_files")
            for name in folders:
                file.writelines(_lines(root, str(name)))
        copy_into(cursor, "COPY seen_files FROM STDIN", listing)
    with connection.cursor(row_factory=class_row(Absent)) as found:
        return found.execute(_ABSENT, (limit,)).fetchall()


def _is_seen(root: Path) -> bool:
    try:
        with os.scandir(root) as entries:
            return next(entries, None) is not None
    except OSError:
        return False


def _lines(root: Path, folder: str) -> Iterator[bytes]:
    """Yield what COPY takes for each file of a folder; one line without a name if it cannot be read.

    A link out of the root is no file, as for the runs of the engine.
    """
    try:
        if not _is_below(root / folder, root):
            return
        with os.scandir(root / folder) as entries:
            for entry in entries:
                # No reference has a backslash or characters that are not printable in its path.
                if entry.name.isprintable() and "\\" not in entry.name and _is_file(entry, root):
                    yield f"{folder}\t{entry.name}\n".encode()
    except OSError as error:
        if error.errno not in MISSING:
            yield f"{folder}\t\\N\n".encode()


def _is_file(entry: os.DirEntry[str], root: Path) -> bool:
    try:
        return entry.is_file() and (not entry.is_symlink() or _is_below(Path(entry.path), root))
    except OSError as error:  # a link, to where this process may not look or to itself
        return error.errno not in MISSING


def _is_below(path: Path, root: Path) -> bool:
    # Not `Path.resolve`: what is no path to anything is answered by what lists or opens it.
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))
