"""Declarative base of every table, and the column types that they share."""

from datetime import datetime
from typing import Annotated, Any

from sqlalchemy import BigInteger, DateTime, MetaData, String, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column
from ulid import ULID

NAMES = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

Key = Annotated[str, mapped_column(String(40), primary_key=True)]
Time = Annotated[datetime, mapped_column(DateTime(timezone=True))]
Created = Annotated[datetime, mapped_column(DateTime(timezone=True), server_default=func.now())]
Json = Annotated[dict[str, Any], mapped_column(JSONB)]
Big = Annotated[int, mapped_column(BigInteger)]


class Table(DeclarativeBase):
    """Base class; constraint names are fixed so that migrations can name them."""

    metadata = MetaData(naming_convention=NAMES)


def new_id(prefix: str) -> str:
    """Return a new identifier such as ``job_01J...``: unique, sorted by the time it was made."""
    return f"{prefix}_{ULID()!s}".lower()
