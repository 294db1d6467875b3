"""Is the process alive, and can it serve: ``/livez`` and ``/readyz``."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import structlog
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from sqlalchemy import text

from app.core.db import Database
from app.core.storage import Storage

if TYPE_CHECKING:
    from redis import Redis  # loading it would make every start slower

log = structlog.get_logger(__name__)
router = APIRouter(tags=["health"])


class Live(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Ready(BaseModel):
    """What the service needs, each ``ok`` or the sentence that says what failed."""

    status: Literal["ok", "unavailable"]
    checks: dict[str, str]


@router.get("/livez")
def live() -> Live:
    """Say that the process answers; nothing else is looked at."""
    return Live()


@router.get("/readyz", responses={503: {"model": Ready, "description": "Names what failed."}})
def ready(request: Request, response: Response) -> Ready:
    """Reach database, broker and storage; 503 names the ones that failed."""
    state = request.app.state
    checks = {
        "database": _outcome(lambda: _ping_database(state.database)),
        "broker": _outcome(lambda: _ping_broker(state.redis)),
        "storage": _outcome(lambda: _ping_storage(state.storage)),
    }
    healthy = all(outcome == "ok" for outcome in checks.values())
    response.status_code = 200 if healthy else 503
    return Ready(status="ok" if healthy else "unavailable", checks=checks)


def _outcome(check: Callable[[], None]) -> str:
    try:
        check()
    except Exception as error:  # noqa: BLE001 - whatever fails, the answer must name it
        log.warning("not_ready", error=type(error).__name__)
        return f"failed: {type(error).__name__}"
    return "ok"


def _ping_database(database: Database) -> None:
    with database.transaction() as session:
        session.execute(text("SELECT 1"))


def _ping_broker(redis: "Redis") -> None:
    redis.ping()


def _ping_storage(storage: Storage) -> None:
    storage.check()
