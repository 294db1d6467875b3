"""Errors of authentication and authorisation."""

from app.core.errors import Forbidden, Invalid, Unauthorized


class NotAuthenticated(Unauthorized):
    """No token came, or it is unknown, has run out or was revoked."""

    def __init__(self) -> None:
        super().__init__(
            "Expected 'Authorization: Bearer lethe_...' with a token that is known, has not run "
            "out and was not revoked. Make one with `lethe token create`.",
            headers={"WWW-Authenticate": "Bearer"},
        )


class MissingScope(Forbidden):
    """The token is valid but lacks the scope."""

    slug, title = "missing-scope", "The token lacks a scope"


class UnknownScope(Invalid):
    """A scope that does not exist was asked for."""

    slug, title = "unknown-scope", "The scope is unknown"
