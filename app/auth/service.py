"""Who calls, and what they may do: bearer tokens with scopes, kept as SHA-256 only."""

import hashlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import get_args

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from fastapi.security.utils import get_authorization_scheme_param
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.auth.errors import MissingScope, NotAuthenticated, UnknownScope
from app.auth.schemas import Scope
from app.auth.tables import Token
from app.core.db import Database
from app.core.tables import new_id

SCOPES: tuple[str, ...] = get_args(Scope)
PREFIX = "lethe_"
# A revoked token works for at most this long in a process that knew it.
CACHE_SECONDS = 5.0
_MOST_CACHED = 10_000


@dataclass(frozen=True)
class Caller:
    """The token that a request came with; it ends at ``expires_time``, if it ever does."""

    token_id: str
    name: str
    scopes: frozenset[str]
    expires_time: datetime | None = None

    def may(self, scope: str) -> bool:
        """Say whether the caller has ``scope``; ``admin`` has all."""
        return scope in self.scopes or "admin" in self.scopes


@dataclass
class CallerCache:
    """Tokens verified in this process in the last few seconds, by the digest of their secret."""

    seconds: float = CACHE_SECONDS
    _known: dict[bytes, tuple[float, Caller]] = field(default_factory=dict)

    def get(self, digest: bytes) -> Caller | None:
        """Return the caller, unless it is unknown or was verified too long ago."""
        until, caller = self._known.get(digest, (0.0, None))
        return caller if time.monotonic() < until else None

    def put(self, digest: bytes, caller: Caller) -> None:
        """Remember ``caller`` for a few seconds, but not past the end of its token."""
        if len(self._known) >= _MOST_CACHED:
            self._known.clear()
        seconds = self.seconds
        if caller.expires_time is not None:
            left = caller.expires_time - datetime.now(UTC)
            seconds = min(seconds, left.total_seconds())
        self._known[digest] = (time.monotonic() + seconds, caller)


def create_token(
    session: Session, name: str, scopes: Sequence[str], expires: datetime | None = None
) -> tuple[Token, str]:
    """Add a token; return it and its secret, which is kept nowhere and cannot be read again.

    Raises:
        UnknownScope: a scope is not one of `SCOPES`, or none is given.
    """
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise UnknownScope(
            f"Expected scopes out of {', '.join(SCOPES)}; got {', '.join(unknown) or 'none'}."
        )
    secret = PREFIX + secrets.token_urlsafe(32)
    token = Token(
        token_id=new_id("tok"),
        name=name,
        secret_sha256=_digest(secret),
        scopes=sorted(set(scopes)),
        expires_time=expires,
    )
    session.add(token)
    session.flush()
    return token, secret


def revoke_token(session: Session, token_id: str) -> bool:
    """End a token; return whether there was one to end."""
    token = session.get(Token, token_id)
    if token is None or token.revoked_time is not None:
        return False
    token.revoked_time = session.scalar(select(func.now()))
    return True


def verify(session: Session, secret: str) -> Caller | None:
    """Return the caller whose secret this is, or None if no valid token has it."""
    try:
        return _find(session, _digest(secret))
    except NotAuthenticated:
        return None


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _find(session: Session, digest: bytes) -> Caller:
    # Secrets have 256 bits of chance, so looking their digest up leaks nothing worth having; and
    # only who holds the secret learns what became of its token.
    query = select(Token, func.now()).where(Token.secret_sha256 == digest)
    found = session.execute(query).one_or_none()
    if found is None:
        raise NotAuthenticated("The token is unknown.")
    token, now = found
    if token.revoked_time is not None:
        raise NotAuthenticated(
            f"The token {token.token_id} was revoked at {_utc(token.revoked_time)}."
        )
    if token.expires_time is not None and token.expires_time <= now:
        raise NotAuthenticated(f"The token {token.token_id} ran out at {_utc(token.expires_time)}.")
    return Caller(token.token_id, token.name, frozenset(token.scopes), token.expires_time)


def _utc(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


async def authenticated(request: Request) -> Caller:
    """Return who calls.

    Raises:
        NotAuthenticated: the request has no token, none that is valid, or more than one.
    """
    given = request.headers.getlist("Authorization")
    if len(given) > 1:  # a proxy in front may have looked at another one than the first
        raise NotAuthenticated(f"The request has {len(given)} Authorization headers, not one.")
    scheme, secret = get_authorization_scheme_param(given[0] if given else None)
    if scheme.lower() != "bearer" or not secret:
        raise NotAuthenticated
    if not secret.startswith(PREFIX):
        raise NotAuthenticated(f"The token is none of this service's, which begin with {PREFIX}.")
    digest = _digest(secret)
    cache: CallerCache = request.app.state.callers
    caller = cache.get(digest)
    if caller is None:
        caller = await run_in_threadpool(_look_up, request.app.state.database, digest)
        cache.put(digest, caller)
    return caller


def _look_up(database: Database, digest: bytes) -> Caller:
    with database.transaction() as session:
        return _find(session, digest)


class require(SecurityBase):  # noqa: N801 - reads as the function that a route sees
    """A dependency that gives the `Caller` if its token has ``scope``.

    Use as ``Annotated[Caller, Depends(require("models:read"))]``. It is one dependency, and not one for
    the header, one for the token and one for the scope: each costs every request.

    Raises:
        UnknownScope: when the routes are defined, if there is no such scope.
    """

    def __init__(self, scope: str) -> None:
        if scope not in SCOPES:
            raise UnknownScope(f"Expected a scope out of {', '.join(SCOPES)}; got {scope!r}.")
        self.scope = scope
        self.scheme_name = "token"
        self.model = HTTPBearer(
            description="A token made by `lethe token create`; each route says which scope it needs."
        )

    async def __call__(self, request: Request) -> Caller:
        """Return the caller.

        Raises:
            NotAuthenticated: there is no valid token.
            MissingScope: the token lacks the scope.
        """
        caller = await authenticated(request)
        if not caller.may(self.scope):
            raise MissingScope(
                f"This needs a token with the scope {self.scope}; {caller.token_id} has "
                f"{', '.join(sorted(caller.scopes))}.",
                self.scope,
            )
        return caller
