"""What an error of the database means to the caller whose request met it."""

import structlog
from sqlalchemy.exc import DataError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.core.errors import Invalid, Problem, Unavailable

EXPECTED = (DataError, OperationalError, InterfaceError, PoolTimeout)
"""The errors that `problem_of` knows; any other one is a fault of the service."""
# Serialization failure, deadlock, and whatever else PostgreSQL rolls a transaction back for (class
# 40); a lock that was not to be had in time.
_CONFLICTS = ("40", "55P03")
log = structlog.get_logger(__name__)


def problem_of(error: Exception) -> Problem:
    """Return the answer to a request that ended with one of the errors `EXPECTED`."""
    if isinstance(error, DataError):
        log.info("value_refused", error=type(error).__name__)
        detail = "A value cannot be stored: it is out of range or has a NUL character. Correct it."
        return Invalid(detail)
    sqlstate = getattr(error.orig, "sqlstate", None) if isinstance(error, DBAPIError) else None
    log.warning("database_unavailable", error=type(error).__name__, sqlstate=sqlstate)
    if (sqlstate or "").startswith(_CONFLICTS):
        return _unavailable(
            "The request met another one that was changing the same data, and the database let that"
            " one go first. Nothing was changed; send the request again.",
            seconds=1,
        )
    if isinstance(error, PoolTimeout):
        return _unavailable(
            "Every connection of the service to its database is in use. Nothing was changed; try"
            " again, with fewer requests at once.",
            seconds=5,
        )
    # Lost in the middle of a commit, it may have kept what it could not confirm.
    return _unavailable(
        "The database cannot be reached now. Try again; a POST with the same Idempotency-Key does"
        " nothing twice.",
        seconds=5,
    )


def _unavailable(detail: str, *, seconds: int) -> Unavailable:
    return Unavailable(detail, headers={"Retry-After": str(seconds)})
