"""Questions about paths."""

from pathlib import Path


def is_there(path: Path) -> bool:
    """Return whether something has this path, also where it cannot be looked at."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True
