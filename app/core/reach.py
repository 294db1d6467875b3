"""Whether the servers that settings name can be reached; a sentence where one cannot."""

from urllib.parse import urlsplit

import psycopg

from app.core.settings_errors import UnreachableError

_SECONDS = 5


def require_database(url: str) -> None:
    """Connect to PostgreSQL once.

    Raises:
        UnreachableError: it does not answer, or not to this user.
    """
    try:
        psycopg.connect(url.replace("+psycopg", "", 1), connect_timeout=_SECONDS).close()
    except psycopg.Error as error:
        raise UnreachableError(
            f"The database cannot be reached: {_reason(error, url)}. Start it, or correct "
            "LETHE_DATABASE_URL."
        ) from None  # what libpq says of a malformed URL may show the password


def require_broker(url: str) -> None:
    """Connect to Redis once.

    Raises:
        UnreachableError: it does not answer, or not to this user.
    """
    # Here, since it is slow to load.
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError
    from redis.retry import Retry

    once = Retry(NoBackoff(), 0)
    try:
        with Redis.from_url(
            url, socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS, retry=once
        ) as client:
            client.ping()
    except (RedisError, OSError, ValueError, TypeError) as error:  # the last: an unknown option
        place, said = _place(url), _reason(error, url)
        reason = said.partition(f"connecting to {place}. ")[2] or said
        raise UnreachableError(
            f"Redis cannot be reached at {place}: {reason}. Start it, or correct LETHE_REDIS_URL."
        ) from None


def require_storage(url: str) -> None:
    """Write and remove a small object where the storage is no folder of this machine.

    Args:
        url: fsspec URL.

    Raises:
        UnreachableError: that failed.
    """
    if urlsplit(url).scheme == "file":
        return  # looked at where it is made
    from app.core.storage import Storage  # here, since fsspec is slow to load

    try:
        Storage(url).check()
    except Exception as error:  # noqa: BLE001 - each protocol has its own
        scheme, _, rest = url.partition("://")
        shown = f"{scheme}://{rest.rpartition('@')[2]}"
        why = (
            type(error).__name__
            if "@" in rest
            else f"{type(error).__name__}: {_reason(error, url)}"
        )
        raise UnreachableError(
            f"The storage {shown} cannot be written: {why}. Start it, make the place, or correct "
            "LETHE_STORAGE_URL."
        ) from None


def _place(url: str) -> str:
    """Return host and port, or the path of a socket: never the password."""
    parts = urlsplit(url)
    return parts.netloc.rpartition("@")[2] or parts.path


def _reason(error: Exception, url: str) -> str:
    """Return the first line of what went wrong."""
    password = urlsplit(url).password
    reason = str(error).partition("\n")[0].rstrip(". ") or type(error).__name__
    return "its URL is malformed" if password and password in reason else reason
