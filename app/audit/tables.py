"""Audits: all metrics of one version."""

from typing import Any

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.core.tables import Created, Key, Table


class Audit(Table):
    """What one job measured on one version: metrics with n and interval, cost, environment."""

    __tablename__ = "audits"
    __table_args__ = (Index("ix_audits_version_id", "version_id"),)

    audit_id: Mapped[Key]
    version_id: Mapped[str] = mapped_column(ForeignKey("versions.version_id"))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.job_id"), unique=True)
    objective: Mapped[str | None] = mapped_column(String(12))
    metrics: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    cost: Mapped[dict[str, Any]] = mapped_column(JSONB)
    environment: Mapped[dict[str, Any]] = mapped_column(JSONB)
    created_time: Mapped[Created]
