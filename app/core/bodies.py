"""Large bodies: raw ones, spooled to a file and hashed as they come, and long JSON lists.

The dependency is asynchronous because it reads the connection; the route that gets the finished
file is an ordinary function.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from app.core.errors import Invalid
from app.core.json_bodies import JsonRoute
from app.core.media_types import require_plain
from app.core.middleware import raise_cap
from app.core.problems import MalformedRequest
from app.core.settings import Settings
from app.core.storage import room

# Cap of JSON bodies but for those of `LongList`: one object, of which no field is long.
MOST_JSON_BYTES = 1 << 20
_BLOCK = 1 << 20
_SHA256 = re.compile(r"(?:^|,)\s*sha-256\s*=\s*:([A-Za-z0-9+/=]*):")
_ANY_SHA256 = re.compile(r"\bsha-?256\b", re.IGNORECASE)
DIGEST_HEADERS = ("repr-digest", "content-digest")


class LongList(JsonRoute):
    """A route whose JSON body may have up to ``max_body_bytes`` of the settings.

    A dependency could not raise the cap: FastAPI reads JSON before it calls any.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler, which raises the cap first."""
        handle = super().get_route_handler()

        async def handle_long(request: Request) -> Response:
            raise_cap(request.scope, request.app.state.settings.max_body_bytes)
            return await handle(request)

        return handle_long


class DigestMismatch(Invalid):
    """The body's SHA-256 is not the one that the caller announced."""

    slug, title = "digest-mismatch", "The body does not have the announced digest"


class Truncated(Invalid):
    """The body ended before its announced length."""

    slug, title = "truncated-body", "The body is shorter than announced"


@dataclass(frozen=True)
class SpooledBody:
    """A whole body in a temporary file, which is removed when the request ends."""

    path: Path
    size: int
    sha256: str
    content_type: str


def spooled(limit: Callable[[Settings], int]) -> Callable[[Request], AsyncIterator[SpooledBody]]:
    """Return a dependency that gives the request's body as a `SpooledBody`.

    ``Repr-Digest`` and ``Content-Digest`` (RFC 9530, sha-256) are checked when they are given.

    Args:
        limit: takes the cap in bytes from the settings.
    """

    async def spool(request: Request) -> AsyncIterator[SpooledBody]:
        settings: Settings = request.app.state.settings
        _require_whole(request)
        raise_cap(request.scope, limit(settings))
        expected = _announced_digest(request)
        with await run_in_threadpool(_temporary_file, settings.work / "spool") as file:
            path = Path(file.name)
            try:
                size, digest = await _receive(request, file)
                file.close()
                _check(request, size, digest, expected)
                content_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
                yield SpooledBody(path, size, digest.hex(), content_type)
            finally:
                await run_in_threadpool(path.unlink, missing_ok=True)

    return spool


def _require_whole(request: Request) -> None:
    """Refuse what is not the file itself: a packed one, or a part of it (RFC 9110, 14.5)."""
    require_plain(request.headers)
    if "content-range" in request.headers:
        raise MalformedRequest(
            "Expected no Content-Range: a file is put whole. Send all of it in one request."
        )


def _temporary_file(folder: Path) -> IO[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    # Not removed when it is closed: by then the storage may have moved it away.
    return NamedTemporaryFile(dir=folder, delete=False)


async def _receive(request: Request, file: IO[bytes]) -> tuple[int, bytes]:
    hasher = hashlib.sha256()
    block = bytearray()
    size = 0

    def flush() -> None:
        hasher.update(block)
        with room():
            file.write(block)

    try:
        async for chunk in request.stream():
            size += len(chunk)
            block += chunk
            if len(block) >= _BLOCK:
                await run_in_threadpool(flush)
                block.clear()
    except ClientDisconnect:
        raise Truncated(
            f"The connection ended after {size} bytes. Nothing was kept; send the body again."
        ) from None
    await run_in_threadpool(flush)
    return size, hasher.digest()


def _check(request: Request, size: int, digest: bytes, expected: bytes | None) -> None:
    announced = request.headers.get("content-length")
    if announced is not None and int(announced) != size:
        raise Truncated(
            f"Content-Length announced {announced} bytes but {size} came. Nothing was kept; send "
            "the body again."
        )
    if expected is not None and expected != digest:
        raise DigestMismatch(
            f"The body's SHA-256 is {digest.hex()}; the header announced {expected.hex()}. Nothing "
            "was kept; send the body again."
        )


def _announced_digest(request: Request) -> bytes | None:
    """Return the SHA-256 that the headers announce; both of them must announce the same."""
    found: dict[str, bytes] = {}
    for name in DIGEST_HEADERS:
        value = request.headers.get(name, "")
        digest = _SHA256.search(value)
        # RFC 9530: digests of algorithms that are not known here are ignored. One that is known
        # and cannot be read must not be: its sender believes that the body was checked.
        if digest is not None or _ANY_SHA256.search(value):
            found[name] = _decoded(name, digest[1] if digest else "")
    if len(set(found.values())) > 1:
        raise Invalid(
            "Expected one SHA-256; Repr-Digest and Content-Digest announce two. Correct them.",
            pointers=[{"parameter": name, "detail": "differs"} for name in found],
        )
    return next(iter(found.values()), None)


def _decoded(name: str, text: str) -> bytes:
    try:
        digest = base64.b64decode(text, validate=True)
    except binascii.Error:
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise Invalid(
            f"Expected {name} to be like 'sha-256=:<base64 of 32 bytes>:' (RFC 9530).",
            pointers=[{"parameter": name, "detail": "not a SHA-256 digest"}],
        )
    return digest
