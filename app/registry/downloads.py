"""Sending a stored file: ranges, conditions and digests (RFC 9110, 13 and 14; RFC 9530).

The entity tag is the file's SHA-256, so that equal tags mean equal bytes.
"""

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import format_datetime
from pathlib import PurePosixPath
from typing import BinaryIO

from fastapi import Response
from fastapi.responses import StreamingResponse

from app.core.errors import Problem
from app.core.etags import matches
from app.core.storage import Storage
from app.registry.tables import VersionFile

_BLOCK = 1 << 20
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_TYPES = {".json": "application/json", ".md": "text/markdown", ".txt": "text/plain"}


class RangeNotSatisfiable(Problem):
    """The range lies outside of the file."""

    status, slug, title = 416, "range-not-satisfiable", "The range lies outside of the file"


@dataclass(frozen=True)
class Part:
    """The bytes from ``start`` up to, not including, ``end``."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.end - self.start


@dataclass(frozen=True)
class Plan:
    """What a download is to send: a status, headers, and which bytes."""

    status: int
    headers: dict[str, str]
    part: Part

    @property
    def begins(self) -> bool:
        """Whether it sends the file's first byte."""
        return self.status != 304 and self.part.start == 0


def plan(file: VersionFile, requested: Mapping[str, str]) -> Plan:
    """Decide the answer to a GET or HEAD with these request headers.

    Raises:
        RangeNotSatisfiable: the range lies outside of the file.
    """
    etag = f'"{file.sha256}"'
    headers = _headers(file, etag)
    whole = Part(0, file.size)
    if matches(requested.get("if-none-match"), etag):
        return Plan(304, headers, whole)
    part = None
    if requested.get("if-range", etag) == etag:
        part = _part(requested.get("range"), file.size)
    if part is None:
        return Plan(200, headers | {"Content-Length": str(file.size)}, whole)
    partial = {
        "Content-Length": str(part.size),
        "Content-Range": f"bytes {part.start}-{part.end - 1}/{file.size}",
    }
    return Plan(206, headers | partial, part)


def response(storage: Storage, file: VersionFile, plan: Plan, *, body: bool) -> Response:
    """Return the answer that was planned; without ``body`` only its head (HEAD, 304)."""
    if not body or plan.status == 304:
        return Response(status_code=plan.status, headers=plan.headers)
    # Opened here and not while it is sent, so that a lost object is an error and not a cut body.
    source = storage.open(file.location)
    return StreamingResponse(_blocks(source, plan.part), plan.status, plan.headers)


def _headers(file: VersionFile, etag: str) -> dict[str, str]:
    digest = base64.b64encode(bytes.fromhex(file.sha256)).decode()
    kind = _TYPES.get(PurePosixPath(file.path).suffix, "application/octet-stream")
    return {
        "ETag": etag,
        "Repr-Digest": f"sha-256=:{digest}:",
        "Accept-Ranges": "bytes",
        "Last-Modified": format_datetime(file.created_time.astimezone(UTC), usegmt=True),
        "Cache-Control": "private, no-cache",
        "Content-Type": kind,
        "Content-Disposition": f'attachment; filename="{PurePosixPath(file.path).name}"',
        "X-Content-Type-Options": "nosniff",
    }


def _part(value: str | None, size: int) -> Part | None:
    """Return the one range that is asked for; None for none, several or one that cannot be read."""
    found = _RANGE.fullmatch(value.strip()) if value is not None else None
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        part = Part(max(size - int(found[2]), 0), size)
    else:
        part = Part(int(found[1]), min(int(found[2]) + 1, size) if found[2] else size)
        if found[2] and int(found[2]) < int(found[1]):
            return None
    if part.start >= size or part.size <= 0:
        raise RangeNotSatisfiable(
            f"The file has {size} bytes; 'Range: {found[0]}' names none of them.",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return part


def _blocks(source: BinaryIO, part: Part) -> Iterator[bytes]:
    with source:
        source.seek(part.start)
        left = part.size
        while left and (block := source.read(min(left, _BLOCK))):
            left -= len(block)
            yield block
