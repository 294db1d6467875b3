"""API tokens (hashed) and idempotency keys."""

from datetime import datetime
from typing import Any

from sqlalchemy import DateTime, Index, LargeBinary, String, Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.core.tables import Created, Key, Table


class Token(Table):
    """A bearer token: only the SHA-256 of its secret is kept."""

    __tablename__ = "tokens"

    token_id: Mapped[Key]
    name: Mapped[str] = mapped_column(String(200))
    secret_sha256: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(String(40)))
    created_time: Mapped[Created]
    expires_time: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    revoked_time: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class IdempotencyKey(Table):
    """The answer to a POST, kept so that its repetition does nothing twice."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index(None, "created_time"),)

    token_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    request_sha256: Mapped[bytes] = mapped_column(LargeBinary(32))
    status: Mapped[int]
    headers: Mapped[dict[str, Any]] = mapped_column(JSONB)
    # The body to the byte: JSONB would give its members another order.
    body: Mapped[str] = mapped_column(Text)
    created_time: Mapped[Created]
