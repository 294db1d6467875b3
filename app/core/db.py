"""The database: one engine a process, one session a request or task, and the only commit."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

from anyio import CancelScope, CapacityLimiter, to_thread
from fastapi import Depends, Request
from sqlalchemy import Engine, create_engine, make_url
from sqlalchemy.orm import Session, sessionmaker

from app.core.together import Statement, send_together

Hook = Callable[[], None]
_HOOKS = "after_commit"
_FINALE = "finale"
# Statements are written so that any plan but a generic one only costs planning.
_GENERIC_PLANS = "-c plan_cache_mode=force_generic_plan"
# A host that fell silent is given up after seconds, not after the quarter of an hour of TCP's own.
_NETWORK = {"connect_timeout": 10, "tcp_user_timeout": 30_000}


class Database:
    """An engine and its session factory; make it after any fork.

    Args:
        url: ``postgresql+psycopg://...``; a plain ``postgresql://`` is accepted too.
    """

    def __init__(self, url: str, *, pool_size: int = 20) -> None:
        self.url = url.replace("postgresql://", "postgresql+psycopg://", 1)
        self.engine: Engine = create_engine(
            self.url,
            pool_size=pool_size,
            max_overflow=20,
            pool_pre_ping=True,
            pool_timeout=10,
            connect_args={
                "options": f"{_options_of(self.url)} {_GENERIC_PLANS}",
                # What psycopg prepares by itself it lets go of after any rollback, by DEALLOCATE ALL:
                # what `send_together` has prepared would go with it.
                "prepare_threshold": None,
                **_NETWORK,
            },
            hide_parameters=True,  # errors are logged, and parameters are ids of pairs
        )
        self._sessions = sessionmaker(self.engine, expire_on_commit=False, autoflush=False)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """One unit of work: commits when the block ends, rolls back when it raises."""
        with self.session() as session:
            try:
                yield session
                commit(session)
            except BaseException:
                session.rollback()
                raise

    def session(self) -> Session:
        """Return a session, to be ended with `commit` or closed; it takes no connection yet."""
        return self._sessions()

    def dispose(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def _options_of(url: str) -> str:
    """Return the server options that the URL itself gives, which ours must not replace."""
    given = make_url(url).query.get("options", "")
    return given if isinstance(given, str) else " ".join(given)


@dataclass(frozen=True)
class Finale:
    """Statements sent to the server in one go with the COMMIT of a transaction.

    Locks that ``last`` takes are held for none of our own time, only for the server's.

    Attributes:
        last: run as the last of the transaction.
        then: run right after its COMMIT, in a transaction of their own.
    """

    last: Sequence[Statement]
    then: Sequence[Statement] = ()


def end_with(session: Session, finale: Finale) -> None:
    """Have ``session``'s transaction end with ``finale``.

    Raises:
        RuntimeError: it has an end already.
    """
    if has_ended(session):
        raise RuntimeError("A transaction can be given one end only, and this one has it already.")
    session.info[_FINALE] = finale


def has_ended(session: Session) -> bool:
    """Return whether `end_with` has been called, after which nothing may be added."""
    return _FINALE in session.info


def commit(session: Session) -> None:
    """Commit what ``session`` has done, with its finale; then run the hooks left by `after_commit`."""
    finale: Finale | None = session.info.pop(_FINALE, None)
    if finale is not None:
        session.flush()
        send_together(session, [*finale.last, ("COMMIT", {}), *finale.then])
    session.commit()  # after a finale it finds the connection idle, and only lets go of it
    hooks: list[Hook] = session.info.pop(_HOOKS, [])
    for hook in hooks:
        hook()


def after_commit(session: Session, hook: Hook) -> None:
    """Have ``hook`` run once, after ``session``'s transaction has committed."""
    session.info.setdefault(_HOOKS, []).append(hook)


async def _request_session(request: Request) -> AsyncIterator[Session]:
    database: Database = request.app.state.database
    session = database.session()
    try:
        yield session
        if session.in_transaction() or has_ended(session):
            await _in_thread(commit, session)
    finally:
        if session.in_transaction():
            await _in_thread(session.close)


async def _in_thread(end: Callable[..., None], *values: object) -> None:
    """Run the end of a transaction to its own end, without waiting for a free thread.

    All threads there are may be waiting for the connection that this one gives back.
    """
    with CancelScope(shield=True):
        await to_thread.run_sync(end, *values, limiter=CapacityLimiter(1))


# scope="function": the commit happens before the response is sent, so a client that saw 2xx can
# rely on it. A route that commits in its own thread leaves nothing to do here.
SessionDep = Annotated[Session, Depends(_request_session, scope="function")]
