"""``Idempotency-Key``: a repeated POST does nothing twice and gets the first one's answer.

The answer is kept in the transaction that makes the change, so both exist or neither does. Only
successful answers are kept: after an error the same key may be tried again.
"""

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from fastapi import Depends, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel
from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.auth.service import authenticated
from app.auth.tables import IdempotencyKey
from app.core.db import SessionDep, commit
from app.core.errors import Conflict, Invalid

KEPT_FOR = timedelta(hours=24)
_SWEPT_AT_ONCE = 100


class KeyInUse(Conflict):
    """A request with this key is still running."""

    slug, title = "idempotency-key-in-use", "The first request with this key is still running"


class KeyReused(Invalid):
    """The key came before with another request."""

    slug, title = "idempotency-key-reused", "The key came before with another request"


class Replay(Exception):
    """Ends a repeated request with the answer that was kept."""

    def __init__(self, response: Response) -> None:
        super().__init__("replayed")
        self.response = response


@dataclass(frozen=True)
class Once:
    """Answers a POST; keeps the answer when the caller sent an Idempotency-Key."""

    session: Session
    token_id: str = ""
    key: str | None = None
    request_sha256: bytes = b""

    def answer(
        self, status: int, model: BaseModel, headers: dict[str, str] | None = None
    ) -> Response:
        """Commit, and return ``model`` as JSON with ``status``: the last that a route does."""
        body = model.model_dump_json(by_alias=True)
        if self.key is not None:
            self._keep(status, body, headers or {})
        commit(self.session)  # here, since others may wait for what is locked while threads change
        return Response(body, status, headers, media_type="application/json")

    def replay_or_lock(self) -> None:
        """Raise `Replay` when the answer is known, else hold the key until this transaction ends.

        Raises:
            KeyInUse: another transaction holds the key.
            KeyReused: the key was used for another method, path or body.
        """
        lock = func.hashtextextended(f"{self.token_id}\n{self.key}", 0)
        if not self.session.scalar(select(func.pg_try_advisory_xact_lock(lock))):
            raise KeyInUse(
                "The first request with this Idempotency-Key has not ended. Try again shortly.",
                headers={"Retry-After": "1"},
            )
        kept = self.session.scalar(
            select(IdempotencyKey).where(
                IdempotencyKey.token_id == self.token_id,
                IdempotencyKey.key == self.key,
                IdempotencyKey.created_time > func.now() - KEPT_FOR,
            )
        )
        if kept is not None:
            self._replay(kept)

    def _replay(self, kept: IdempotencyKey) -> None:
        if kept.request_sha256 != self.request_sha256:
            raise KeyReused(
                "This Idempotency-Key came before with another method, path or body. "
                "Use a new key for a new request."
            )
        headers = {**kept.headers, "Idempotency-Replayed": "true"}
        raise Replay(Response(kept.body, kept.status, headers, media_type="application/json"))

    def _keep(self, status: int, body: str, headers: dict[str, str]) -> None:
        _sweep(self.session)
        values = {
            "request_sha256": self.request_sha256,
            "status": status,
            "headers": headers,
            "body": body,
            "created_time": func.now(),
        }
        statement = insert(IdempotencyKey).values(token_id=self.token_id, key=self.key, **values)
        # A row in the way has run out, or `replay_or_lock` would have found it.
        self.session.execute(
            statement.on_conflict_do_update(index_elements=["token_id", "key"], set_=values)
        )


async def _once(
    request: Request,
    session: SessionDep,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            pattern=r"^[!-~]+$",
            description="Makes the request safe to repeat for 24 hours: the same key with the "
            "same body gives the first answer again.",
        ),
    ] = None,
) -> Once:
    if idempotency_key is None:
        return Once(session)
    caller = await authenticated(request)
    fingerprint = hashlib.sha256(f"{request.method} {request.url.path}\n".encode())
    fingerprint.update(await request.body())
    once = Once(session, caller.token_id, idempotency_key, fingerprint.digest())
    await run_in_threadpool(once.replay_or_lock)
    return once


OnceDep = Annotated[Once, Depends(_once, scope="function")]


async def on_replay(_: Request, replay: Exception) -> Response:
    """Exception handler of `Replay`."""
    return replay.response if isinstance(replay, Replay) else Response(status_code=500)


def _sweep(session: Session) -> None:
    # Each new key removes a few that ran out, so the table needs no caretaker.
    old = (
        select(IdempotencyKey.token_id, IdempotencyKey.key)
        .where(IdempotencyKey.created_time <= func.now() - KEPT_FOR)
        .order_by(IdempotencyKey.created_time)
        .limit(_SWEPT_AT_ONCE)
        .with_for_update(skip_locked=True)
        .subquery()
    )
    session.execute(
        delete(IdempotencyKey).where(
            IdempotencyKey.token_id == old.c.token_id, IdempotencyKey.key == old.c.key
        )
    )
