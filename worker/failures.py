"""Which errors of a run another attempt would meet again: those end the job at once, with their reason.

A run is a function of its spec and its data. An error of Python in it comes again at each attempt,
unless it is about memory, the device or a disk that does not answer.
"""

import errno
import re
import traceback
from pathlib import Path

from safetensors import SafetensorError

from engine.errors import DeviceUnavailable, EngineError

_ROOT = Path(__file__).resolve().parent.parent
_FULL = {errno.ENOSPC, errno.EDQUOT}
# What the file system refuses for good. All else (EIO, ESTALE, ENOMEM ...) may pass.
_REFUSED = {
    *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR),
    *(errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.EFBIG),
}
_PASSING = (ConnectionError, TimeoutError, InterruptedError, BlockingIOError)
# RuntimeError is not among them: torch says by it that a device has failed or has no memory left.
# Nor is ImportError as such: a library that finds no memory to be loaded into ends so.
_RECURRING = (
    *(ValueError, TypeError, LookupError, AttributeError, ModuleNotFoundError),
    *(ArithmeticError, NotImplementedError, AssertionError),
)


def reason(error: Exception) -> tuple[str, str] | None:
    """Return code and sentence of an error that would come again, None for one that may not."""
    if isinstance(error, DeviceUnavailable):
        return None
    if isinstance(error, EngineError):
        return error.code, str(error)
    if isinstance(error, OSError | SafetensorError):
        code = _of_files(error)
    else:
        code = "run_error" if isinstance(error, _RECURRING) else None
    return None if code is None else (code, _sentence(error))


def _of_files(error: OSError | SafetensorError) -> str | None:
    number = _number(error)
    if number in _FULL:
        return "storage_full"
    # Libraries raise errors without a number for files that they cannot make sense of.
    refused = number in _REFUSED or (number is None and not isinstance(error, _PASSING))
    return "file_error" if refused else None


def _number(error: OSError | SafetensorError) -> int | None:
    """Return the system's error number; safetensors, written in Rust, tells it in words only."""
    if isinstance(error, OSError):
        return error.errno
    told = re.search(r"os error (\d+)", str(error))
    return int(told.group(1)) if told else None


def _sentence(error: Exception) -> str:
    place = next(
        (
            f" ({Path(frame.filename).relative_to(_ROOT)}, line {frame.lineno})"
            for frame in reversed(traceback.extract_tb(error.__traceback__))
            if Path(frame.filename).is_relative_to(_ROOT)
        ),
        "",
    )
    return (
        f"The run ended by {type(error).__name__}: {error}{place}. Another attempt would end in "
        "the same way: correct what it names, then try again."
    )
