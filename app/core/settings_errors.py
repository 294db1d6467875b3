"""Why a process cannot start. Nothing heavy is imported here, so that the command line can name it at once."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar


class StartError(RuntimeError):
    """A process cannot start; the text says in sentences why, and what to do.

    Attributes:
        status: the exit status of a process that ends by it.
    """

    status: ClassVar[int] = 1


class SettingsError(StartError):
    """A setting, of the environment or of the command line, cannot be used; the text says which and why."""

    status = 2


class MissingSettingError(SettingsError):
    """A process cannot start because a setting that it needs is not there."""


class UnreachableError(StartError):
    """A server that a setting names cannot be reached; the text says which and why."""


@contextmanager
def ended_in_words() -> Iterator[None]:
    """End the process by the sentence, on standard error, of what keeps the block from its work.

    Raises:
        SystemExit: with the status of the error.
    """
    try:
        yield
    except StartError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(error.status) from error
