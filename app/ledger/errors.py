"""Errors of the log."""

from collections.abc import Iterator
from contextlib import contextmanager

from app.core.errors import Invalid, NotFound, Problem


class NoSuchSize(Invalid):
    """A proof was asked for a size that the log does not have, or has not reached."""

    slug, title = "ledger-no-such-size", "The log has no such size"


class NoSuchLeaf(NotFound):
    """The leaf index lies outside of the log."""

    slug, title = "ledger-no-such-leaf", "The log has no such leaf"


class LogCorrupt(Problem):
    """What is stored contradicts what was signed: a person has to look before more is signed."""

    status, slug, title = 500, "ledger-corrupt", "The log contradicts itself"


@contextmanager
def asked_by(parameter: str) -> Iterator[None]:
    """Have a `NoSuchSize` or `NoSuchLeaf` of the block name the query parameter that asked for it."""
    try:
        yield
    except (NoSuchSize, NoSuchLeaf) as error:
        error.pointers = [{"parameter": parameter, "detail": error.detail}]
        raise
