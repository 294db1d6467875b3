"""Which bodies are taken by what their headers say: JSON in UTF-8, and nothing that is packed.

`application/json` is taken, and every `application/<name>+json`, which says of itself that it is
JSON (RFC 6839). A body of another type is refused even where its bytes would be JSON: a browser
sends `text/plain` and forms to any place without asking first.
"""

from email.message import Message

from starlette.datastructures import Headers

from app.core.errors import UnsupportedMediaType

JSON = "application/json"
# JSON is UTF-8 (RFC 8259), of which ASCII is a part.
_CHARSETS = (None, "utf-8", "utf8", "us-ascii")
_MOST_SHOWN = 100


def require_json(headers: Headers) -> None:
    """Raise `UnsupportedMediaType` unless the headers announce a body of JSON in UTF-8."""
    given = headers.get("content-type", "")
    message = Message()
    message["content-type"] = given
    kind = message.get_content_type()
    is_json = kind.startswith("application/") and (kind == JSON or kind.endswith("+json"))
    if not (given and is_json):
        raise _refusal(f"Content-Type: {JSON}", given, {"Accept": JSON})
    if message.get_content_charset() not in _CHARSETS:
        raise _refusal(f"Content-Type: {JSON}, which is always UTF-8", given, {"Accept": JSON})
    require_plain(headers)


def require_plain(headers: Headers) -> None:
    """Raise `UnsupportedMediaType` where the body is packed, such as by gzip."""
    given = headers.get("content-encoding", "").strip()
    if given.lower() not in ("", "identity"):
        raise _refusal("no Content-Encoding", given, {"Accept-Encoding": "identity"})


def _refusal(expected: str, given: str, headers: dict[str, str]) -> UnsupportedMediaType:
    came = given[:_MOST_SHOWN] or "none"
    return UnsupportedMediaType(
        f"Expected {expected}; got {came}. Send the body so, and say so in the header.",
        headers=headers,
    )
