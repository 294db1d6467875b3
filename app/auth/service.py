"""Who calls, and what they may do: bearer tokens with scopes, kept as SHA-256 only."""

import hashlib
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, get_args

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import func, or_, select
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
    """The token that a request came with."""

    token_id: str
    name: str
    scopes: frozenset[str]

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
        """Remember ``caller`` for a few seconds."""
        if len(self._known) >= _MOST_CACHED:
            self._known.clear()
        self._known[digest] = (time.monotonic() + self.seconds, caller)


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
    return _find(session, _digest(secret))


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _find(session: Session, digest: bytes) -> Caller | None:
    # Secrets have 256 bits of chance, so looking their digest up leaks nothing worth having.
    token = session.scalar(
        select(Token).where(
            Token.secret_sha256 == digest,
            Token.revoked_time.is_(None),
            or_(Token.expires_time.is_(None), Token.expires_time > func.now()),
        )
    )
    return None if token is None else Caller(token.token_id, token.name, frozenset(token.scopes))


_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="token",
    description="A token made by `lethe token create`; each route says which scope it needs.",
)


async def _authenticated(
    request: Request,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Caller:
    if credentials is None or not credentials.credentials.startswith(PREFIX):
        raise NotAuthenticated
    digest = _digest(credentials.credentials)
    cache: CallerCache = request.app.state.callers
    caller = cache.get(digest)
    if caller is None:
        caller = await run_in_threadpool(_look_up, request.app.state.database, digest)
        cache.put(digest, caller)
    return caller


def _look_up(database: Database, digest: bytes) -> Caller:
    with database.transaction() as session:
        caller = _find(session, digest)
    if caller is None:
        raise NotAuthenticated
    return caller


CallerDep = Annotated[Caller, Depends(_authenticated)]


def require(scope: str) -> Callable[..., Coroutine[Any, Any, Caller]]:
    """Return a dependency that gives the `Caller` if its token has ``scope``.

    Use as ``Annotated[Caller, Depends(require("models:read"))]``.

    Raises:
        UnknownScope: when the routes are defined, if there is no such scope.
    """
    if scope not in SCOPES:
        raise UnknownScope(f"Expected a scope out of {', '.join(SCOPES)}; got {scope!r}.")

    async def allowed(caller: CallerDep) -> Caller:
        if not caller.may(scope):
            raise MissingScope(
                f"This needs a token with the scope {scope}; {caller.token_id} has "
                f"{', '.join(sorted(caller.scopes))}."
            )
        return caller

    return allowed
