"""What surrounds every request: its id, its log line, the last error handler and the body cap."""

import re
import time
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import quote

import structlog
from sqlalchemy.exc import DBAPIError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from ulid import ULID

from app.core.json_bodies import address_refusal
from app.core.problems import internal_error, problem_response

log = structlog.get_logger("lethe.http")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CAP = "lethe.body_cap"


class BodyCap:
    """How many bytes of a request's body are taken; a route for large bodies raises it."""

    def __init__(self, limit: int, headers: Headers) -> None:
        self.limit = limit
        self.taken = 0
        announced = headers.get("content-length", "0")
        self.announced = int(announced) if announced.isascii() and announced.isdigit() else 0

    def take(self, size: int) -> None:
        """Count ``size`` bytes; raises HTTP 413 when body or Content-Length is over the limit."""
        self.taken += size
        if max(self.taken, self.announced) > self.limit:
            # FastAPI turns any other exception met while it reads a body into a 400.
            raise HTTPException(
                413,
                f"The body may have at most {self.limit} bytes here; send less. The limits of "
                "deletion requests, manifests and files are settings of the service",
            )


def raise_cap(scope: MutableMapping[str, Any], limit: int) -> None:
    """Let this request's body have up to ``limit`` bytes."""
    cap: BodyCap = scope[_CAP]
    cap.limit = limit


class RequestContext:
    """Outermost ASGI layer: request id in and out, one log line, 500 as a problem, the body cap.

    Args:
        app: the application.
        max_body_bytes: cap of bodies that no route asked to raise.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = _request_id(headers)
        scope[_CAP] = BodyCap(self._max_body_bytes, headers)
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            await self._serve(scope, receive, send, request_id)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        status = 0
        started = time.perf_counter()

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        try:
            refusal = address_refusal(scope)
            answer = self._app if refusal is None else problem_response(refusal)
            await answer(scope, _capped(receive, scope[_CAP]), send_marked)
        except Exception as error:
            _log_failure(error)
            if status:
                raise  # The answer has begun: only breaking the connection tells the caller.
            await internal_error(request_id)(scope, receive, send_marked)
        finally:
            seconds = round(time.perf_counter() - started, 4)
            log.info(
                "request",
                method=scope["method"],
                path=quote(scope["path"], safe="/:"),  # it may hold control characters
                status=status,
                seconds=seconds,
            )


def _log_failure(error: Exception) -> None:
    if isinstance(error, DBAPIError):
        # PostgreSQL's own words name the values of the row at fault.
        sqlstate = getattr(error.orig, "sqlstate", None)
        log.error("request_failed", error=type(error.orig).__name__, sqlstate=sqlstate)
    else:
        log.error("request_failed", exc_info=error)


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else f"req_{ULID()!s}".lower()


def _capped(receive: Receive, cap: BodyCap) -> Receive:
    async def take() -> Message:
        cap.take(0)
        message = await receive()
        if message["type"] == "http.request":
            cap.take(len(message.get("body", b"")))
        return message

    return take
