"""Builds the FastAPI application; `lethe api` serves it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app.audit.routes import router as audit
from app.auth.service import CallerCache
from app.core import health, idempotency, logs, problems
from app.core.bodies import MOST_JSON_BYTES
from app.core.db import Database
from app.core.middleware import RequestContext
from app.core.settings import Settings, get_settings
from app.core.settings_errors import ended_in_words
from app.core.storage import Storage
from app.datasets.routes import router as datasets
from app.deletions.routes import router as deletions
from app.jobs.queue import Queue
from app.jobs.routes import router as jobs
from app.ledger.routes import router as ledger
from app.registry.file_routes import router as files
from app.registry.routes import router as registry
from app.start import opened_log, require_service

ROUTERS = (datasets, registry, files, deletions, jobs, audit, ledger)
DESCRIPTION = """Unlearning as a service for multimodal models.

File a deletion request for (image, text) or (graph, text) pairs; every registered model version
that learned from them is unlearned by a worker; fetch the new checkpoint, its audit and a
certificate that verifies offline. Bodies are JSON in UTF-8 (`application/json` or
`application/*+json`), unless an endpoint names another type. Errors are problem details (RFC 9457):
`type` is stable, `detail` says what to do.
"""


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the application, with everything that its routes need on ``app.state``.

    Args:
        settings: the settings. When omitted, this is the start of a process (`lethe api`, or ``uvicorn
            --factory``): they are those of the environment, and what it needs has to be there.

    Raises:
        StartError: the settings lack a URL, the database cannot be used, or the key is not its log's.
        SystemExit: in place of a `StartError` at the start of a process; its sentence is on standard error.
    """
    if settings is not None:
        return _application(settings)
    with ended_in_words():
        return _application(_checked_settings())


def _checked_settings() -> Settings:
    settings = get_settings()
    logs.configure(settings.log_format, settings.log_level)
    require_service(settings, trainers=False)
    return settings


def _application(settings: Settings) -> FastAPI:
    logs.configure(settings.log_format, settings.log_level)
    app = FastAPI(
        title="Lethe",
        version="0.1.0",
        description=DESCRIPTION,
        lifespan=_lifespan,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    _fill_state(app, settings)
    problems.install(app)
    app.add_exception_handler(idempotency.Replay, idempotency.on_replay)
    app.add_middleware(RequestContext, max_body_bytes=min(MOST_JSON_BYTES, settings.max_body_bytes))
    app.include_router(health.router)
    for router in ROUTERS:
        app.include_router(router, prefix="/v1")
    # FastAPI documents replacing this method as the way to extend the document.
    app.openapi = problems.OpenApi(app)  # type: ignore[method-assign]
    return app


def _fill_state(app: FastAPI, settings: Settings) -> None:
    from redis import Redis  # here, since it is slow to load and the module must not be

    database_url, redis_url = settings.server_urls()
    app.state.settings = settings
    app.state.signer = opened_log(settings, database_url)
    app.state.database = Database(database_url)
    app.state.storage = Storage(settings.storage)
    app.state.queue = Queue(redis_url)
    app.state.redis = Redis.from_url(redis_url, socket_timeout=2, socket_connect_timeout=2)
    app.state.callers = CallerCache()


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    app.state.queue.close()
    app.state.redis.close()
    app.state.database.dispose()
