"""Errors of the service as problem details (RFC 9457): a stable type, a sentence on what to do."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

TYPE_BASE = "https://lethe.dev/problems/"


class Problem(Exception):
    """An error that the caller sees. Subclasses fix ``status``, ``slug`` and ``title``.

    Args:
        detail: one or two sentences: what was expected, what came, what to do.
        pointers: ``[{"pointer": "#/targets/pair_ids", "detail": "..."}]``, the fields at fault.
        extra: further members of the problem object.
        headers: response headers such as ``Retry-After``.
    """

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        pointers: Sequence[Mapping[str, str]] = (),
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.pointers = [dict(pointer) for pointer in pointers]
        self.extra = dict(extra or {})
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Return the problem object."""
        body: dict[str, Any] = {
            "type": TYPE_BASE + self.slug,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            **self.extra,
        }
        if self.pointers:
            body["errors"] = self.pointers
        return body


class NotFound(Problem):
    """The id names nothing that this caller can see."""

    status, slug, title = 404, "not-found", "Not found"


class Conflict(Problem):
    """The resource is in a state in which this cannot be done."""

    status, slug, title = 409, "conflict", "Conflict with the current state"


class Invalid(Problem):
    """The request is well formed but cannot be accepted as it is."""

    status, slug, title = 422, "invalid", "The request cannot be accepted"


class Unauthorized(Problem):
    """No valid bearer token came with the request."""

    status, slug, title = 401, "unauthorized", "A valid token is needed"


class Forbidden(Problem):
    """The token lacks the scope."""

    status, slug, title = 403, "forbidden", "The token does not allow this"


class TooLarge(Problem):
    """The body is larger than the setting allows."""

    status, slug, title = 413, "too-large", "The body is too large"


class UnsupportedMediaType(Problem):
    """The body is of a media type, a charset or an encoding that is not taken here."""

    status, slug, title = 415, "unsupported-media-type", "The media type is not taken here"


class Unavailable(Problem):
    """Database, broker or storage cannot be reached now."""

    status, slug, title = 503, "unavailable", "The service cannot do this at the moment"
