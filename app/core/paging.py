"""Pages of lists: newest first, opaque cursors, ``Link: rel="next"``."""

import base64
import binascii
import json
from collections.abc import Callable
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Query, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.core.errors import Invalid
from app.core.numbers import Within

T = TypeVar("T")
Row = TypeVar("Row")


class Page(BaseModel, Generic[T]):
    """One page; ``next_cursor`` is null on the last one."""

    items: list[T]
    next_cursor: str | None = Field(
        default=None, description="Give it as `cursor` to get the next page."
    )


class Paging:
    """The page that a request asks for."""

    def __init__(
        self,
        request: Request,
        response: Response,
        limit: Annotated[int, Within(1, 200), Query(description="Items a page.")] = 50,
        cursor: Annotated[
            str | None, Query(max_length=200, description="`next_cursor` of the page before.")
        ] = None,
    ) -> None:
        self._request, self._response = request, response
        self.limit = limit
        self.after = _decode(cursor) if cursor is not None else None

    def page(
        self,
        session: Session,
        statement: Select[Row],
        key: InstrumentedAttribute[str],
        convert: Callable[[Row], T],
    ) -> Page[T]:
        """Run ``statement`` for this page, newest ``key`` first, and set the Link header.

        Args:
            session: the request's session.
            statement: selects one entity, filtered but neither ordered nor limited.
            key: the entity's id column; ids made by ``new_id`` sort by time.
            convert: makes an item of the answer from a row.
        """
        if self.after is not None:
            statement = statement.where(key < self.after)
        rows = list(session.scalars(statement.order_by(key.desc()).limit(self.limit + 1)))
        more = len(rows) > self.limit
        rows = rows[: self.limit]
        cursor = _encode(getattr(rows[-1], key.key)) if more else None
        if cursor is not None:
            url = self._request.url.include_query_params(cursor=cursor, limit=self.limit)
            self._response.headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
        return Page(items=[convert(row) for row in rows], next_cursor=cursor)


PagingDep = Annotated[Paging, Depends()]


def _encode(key: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([key]).encode()).decode().rstrip("=")


def _decode(cursor: str) -> str:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        value: Any = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        value = None
    if not (isinstance(value, list) and len(value) == 1 and _is_key(value[0])):
        raise Invalid(
            "The cursor is not one of this service. Give the next_cursor of the page before.",
            pointers=[{"parameter": "cursor", "detail": "unknown cursor"}],
        )
    key: str = value[0]
    return key


def _is_key(value: Any) -> bool:
    return isinstance(value, str) and value.isascii() and value.isprintable()
