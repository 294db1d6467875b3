"""The database: one engine a process, one session a request or task, and the only commit."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session, sessionmaker

Hook = Callable[[], None]
_HOOKS = "after_commit"


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
            hide_parameters=True,  # errors are logged, and parameters are ids of pairs
        )
        self._sessions = sessionmaker(self.engine, expire_on_commit=False, autoflush=False)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """One unit of work: commits when the block ends, rolls back when it raises.

        Hooks left by `after_commit` run once the commit has succeeded, never otherwise.
        """
        with self._sessions() as session:
            try:
                yield session
                session.commit()
            except BaseException:
                session.rollback()
                raise
            hooks: list[Hook] = session.info.pop(_HOOKS, [])
        for hook in hooks:
            hook()

    def dispose(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def after_commit(session: Session, hook: Hook) -> None:
    """Have ``hook`` run once, after ``session``'s transaction has committed."""
    session.info.setdefault(_HOOKS, []).append(hook)


def _request_session(request: Request) -> Iterator[Session]:
    database: Database = request.app.state.database
    with database.transaction() as session:
        yield session


# scope="function": the commit happens before the response is sent, so a client that saw 2xx can
# rely on it.
SessionDep = Annotated[Session, Depends(_request_session, scope="function")]
