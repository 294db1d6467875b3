"""Strong entity tags of polled resources, and 304 for a caller that has the current one."""

import hashlib
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel

NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "The caller's copy is current (If-None-Match)."}
}


def conditional(
    request: Request, model: BaseModel, headers: dict[str, str] | None = None
) -> Response:
    """Return ``model`` as JSON with its ETag, or 304 when If-None-Match names it.

    Routes that use it declare ``response_model`` and ``responses=NOT_MODIFIED | problems(...)``.
    """
    body = model.model_dump_json(by_alias=True).encode()
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    marked = {"ETag": etag, "Cache-Control": "private, no-cache", **(headers or {})}
    if matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=marked)
    return Response(body, media_type="application/json", headers=marked)


def matches(condition: str | None, etag: str) -> bool:
    """Say whether an If-None-Match header names ``etag`` (weak comparison, RFC 9110, 13.1.2)."""
    if condition is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in condition.split(",")]
    return "*" in tags or etag in tags
