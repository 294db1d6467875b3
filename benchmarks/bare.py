"""The service's application with a bare endpoint added, in one uvicorn process.

The bare endpoint takes a string and inserts one row: no token, no ledger. It is there twice: as a
route of the service (`ROUTE`), and as an application of its own that passes by the service's
middleware, so that it has no request log either (`APART`). Both use the service's database pool.
"""

from typing import Annotated

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, StringConstraints
from sqlalchemy import BigInteger, Column, DateTime, MetaData, String, Table, func, insert
from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.db import SessionDep
from app.core.settings import get_settings
from app.main import create_app as create_service

ROUTE = "/bare-rows"
APART = "/apart/bare-rows"
_ROWS = Table(
    "bare_rows",
    MetaData(),
    Column("row_id", BigInteger, primary_key=True),
    Column("value", String(255), nullable=False),
    Column("created_time", DateTime(timezone=True), server_default=func.now()),
)


class NewRow(BaseModel):
    """What the bare endpoint takes."""

    value: Annotated[str, StringConstraints(min_length=1, max_length=255)]


class RowView(BaseModel):
    """What the bare endpoint answers."""

    row_id: int


def add_row(new: NewRow, session: SessionDep) -> RowView:
    """Insert one row."""
    statement = insert(_ROWS).values(value=new.value).returning(_ROWS.c.row_id)
    return RowView(row_id=session.execute(statement).scalar_one())


def create_app() -> ASGIApp:
    """Return an application that passes all but `APART` on to the service."""
    service, apart = create_service(), FastAPI()
    apart.state.database = service.state.database
    _ROWS.metadata.create_all(service.state.database.engine)
    service.post(ROUTE, status_code=201)(add_row)
    apart.post(APART, status_code=201)(add_row)

    async def either(scope: Scope, receive: Receive, send: Send) -> None:
        chosen = apart if scope.get("path") == APART else service
        await chosen(scope, receive, send)

    return either


def main() -> None:
    """Serve it just as `lethe api` serves the service."""
    settings = get_settings()
    uvicorn.run(
        "benchmarks.bare:create_app",
        factory=True,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=10,
    )


if __name__ == "__main__":
    main()
