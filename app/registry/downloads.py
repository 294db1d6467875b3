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
_RANGES = re.compile(r"bytes=(.*)", re.IGNORECASE)
_RANGE = re.compile(r"([0-9]*)-([0-9]*)")
_MOST_DIGITS = 18
_BEYOND = 10**_MOST_DIGITS
"""Stands for any number of more digits: no file has so many bytes."""
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
    """Return the range that is asked for; None where the whole file is to be sent.

    That is so for no range, for one that cannot be read, and for several: a server need not take
    them apart (RFC 9110, 14.2).
    """
    ranges = _RANGES.fullmatch(value.strip()) if value is not None else None
    listed = [one.strip() for one in ranges[1].split(",")] if ranges is not None else []
    asked = [one for one in listed if one]  # a list may have empty elements (RFC 9110, 5.6.1)
    found = _RANGE.fullmatch(asked[0]) if len(asked) == 1 else None
    if found is None or not (found[1] or found[2]):
        return None
    first, last = _number(found[1]), _number(found[2])
    if not found[1]:
        if last and not size:
            return None  # all of an empty file, for which Content-Range has no form
        part = Part(max(size - last, 0), size)
    elif found[2] and last < first:
        return None
    else:
        part = Part(first, min(last + 1, size) if found[2] else size)
    if part.size <= 0:
        raise RangeNotSatisfiable(
            f"The file has {size} bytes; the Range that came names none of them.",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return part


def _number(digits: str) -> int:
    """Return the number, as far as it can matter: Python reads no number of any length."""
    digits = digits.lstrip("0")
    return int(digits or "0") if len(digits) <= _MOST_DIGITS else _BEYOND


def _blocks(source: BinaryIO, part: Part) -> Iterator[bytes]:
    with source:
        source.seek(part.start)
        left = part.size
        while left and (block := source.read(min(left, _BLOCK))):
            left -= len(block)
            yield block
