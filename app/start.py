"""What a process of the service looks at before it starts: better a sentence now than failed jobs later."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from app.core.data_dir import require_places, require_roots
from app.core.db import Database
from app.core.device import require_device, require_precision
from app.core.reach import require_broker, require_database, require_storage
from app.core.settings import Settings
from app.core.settings_errors import UnreachableError
from app.ledger.opening import open_log, read_signer
from app.ledger.tree_head import Signer

log = structlog.get_logger(__name__)


def require_given(settings: Settings) -> None:
    """Refuse settings that the whole service on this machine cannot work with, before anything is made.

    Raises:
        StartError: a root, the signing key, a server that is given, or the device is not what it should be.
    """
    require_roots(settings)
    read_signer(settings)
    if settings.database_url is not None:
        require_database(settings.database_url.get_secret_value())
    if settings.redis_url is not None:
        require_broker(settings.redis_url.get_secret_value())
    require_storage(settings.storage)
    require_device(settings.device)
    require_precision(settings.device, settings.precision)


def require_service(settings: Settings, *, trainers: bool) -> None:
    """Refuse to start an API, or with ``trainers`` a worker, that could not do its work.

    Whoever starts opens the log next (`opened_log`). An API starts without broker and storage, and
    /readyz says so: it takes requests, and workers hear of them later.

    Raises:
        StartError: a setting, a folder, a server or the device is not what it should be.
    """
    database_url, redis_url = settings.server_urls()
    require_places(settings, trainers=trainers)
    require_database(database_url)
    if trainers:
        require_broker(redis_url)
        require_storage(settings.storage)
        require_device(settings.device)
        require_precision(settings.device, settings.precision)
    else:
        _look_for_broker(redis_url)


def opened_log(settings: Settings, database_url: str) -> Signer:
    """Return the log's signer; the one way to it, of everything that appends or signs.

    Raises:
        StartError: the signing key is not the log's, or the log cannot be read; see `open_log`.
    """
    with _one_connection(database_url) as database:
        return open_log(database, settings)


def _look_for_broker(url: str) -> None:
    try:
        require_broker(url)
    except UnreachableError as error:
        log.warning("broker_unreachable", reason=str(error))


@contextmanager
def _one_connection(url: str) -> Iterator[Database]:
    database = Database(url, pool_size=1)
    try:
        yield database
    finally:
        database.dispose()
