"""Errors of authentication and authorisation."""

from app.core.errors import Forbidden, Invalid, Unauthorized

_BARE = {"WWW-Authenticate": "Bearer"}


def _challenge(**members: str) -> dict[str, str]:
    """Return the header that says why a token is refused (RFC 6750, section 3)."""
    said = ", ".join(f'{name}="{value}"' for name, value in members.items())
    return {"WWW-Authenticate": f"Bearer {said}"}


class NotAuthenticated(Unauthorized):
    """No bearer token came, or it is unknown, has run out or was revoked; the sentence says which.

    Args:
        reason: what is wrong with the token that came; None where none did.
    """

    def __init__(self, reason: str | None = None) -> None:
        came = reason or "No bearer token came with the request."
        super().__init__(
            f"{came} Expected 'Authorization: Bearer lethe_...' with a token that is in force; make "
            "one with `lethe token create`.",
            headers=_challenge(error="invalid_token", error_description=reason)
            if reason
            else _BARE,
        )


class MissingScope(Forbidden):
    """The token is valid but lacks the scope.

    Args:
        detail: the sentence that names what is needed and what the token has.
        scope: what is needed.
    """

    slug, title = "missing-scope", "The token lacks a scope"

    def __init__(self, detail: str, scope: str) -> None:
        super().__init__(detail, headers=_challenge(error="insufficient_scope", scope=scope))


class UnknownScope(Invalid):
    """A scope that does not exist was asked for."""

    slug, title = "unknown-scope", "The scope is unknown"
