"""Where a dataset may lie: below a data root, and, where this process sees the root, really there.

API and workers may run on machines of their own, and the data need to be seen by the workers alone.
So a root that is missing is refused only where its data root is seen here; elsewhere the job that
first reads it fails and says so.
"""

import errno
import os
import tarfile
from pathlib import Path
from zipfile import is_zipfile

from app.datasets.errors import RootMissing, RootRefused

MISSING = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
"""What says that nothing is there; anything else may be otherwise for the account of a worker."""


def checked_root(root: str, data_roots: list[str]) -> str:
    """Return ``root`` without links and dots.

    Raises:
        RootRefused: it lies outside of ``data_roots``.
        RootMissing: its data root is seen here, and it is neither a folder nor an archive.
    """
    if root.isprintable() and os.path.isabs(root):  # noqa: PTH117 - it may be of no file at all
        real = Path(os.path.realpath(root))
        for allowed in map(os.path.realpath, data_roots):
            if real.is_relative_to(allowed):
                _check_there(real, Path(allowed))
                return str(real)
    where = ", ".join(data_roots) or "no folder at all: the operator sets LETHE_DATA_ROOTS"
    raise RootRefused(
        f"Expected an absolute path of printable characters below {where}.",
        pointers=[{"pointer": "#/root", "detail": "outside of the data roots"}],
    )


def _check_there(root: Path, data_root: Path) -> None:
    if not data_root.is_dir():
        return
    found = _found(root)
    if found is not None:
        raise RootMissing(
            f"Expected a folder, a zip archive or a .tar archive at {root}; {found}. Put the data "
            "there first, or correct the path.",
            pointers=[{"pointer": "#/root", "detail": found}],
        )


def _found(root: Path) -> str | None:
    """Return what lies at ``root`` where no worker could read it as a dataset, else None."""
    try:
        root.stat()
    except OSError as error:
        return "nothing is there" if error.errno in MISSING else None
    if root.is_dir() or not os.access(root, os.R_OK):
        return None
    return None if root.is_file() and _is_archive(root) else "something else is there"


def _is_archive(file: Path) -> bool:
    if not file.name.lower().endswith(".tar"):
        return is_zipfile(file)
    try:
        with tarfile.open(file, "r:"):
            return True
    except (tarfile.TarError, OSError):
        return False
