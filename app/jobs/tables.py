"""Jobs (the truth about work), their attempts and events."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    func,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.core.tables import Created, Key, Table

ACTIVE = ("preparing", "running", "auditing", "cancelling")
ENDED = ("succeeded", "failed", "cancelled")


class Job(Table):
    """One attempt of the system to meet deletion requests on one lineage, or to train or audit a version.

    ``fencing_token`` grows with each claim; a worker may write only while its token is the row's
    and the lease has not run out. At most one job of a lineage is active at a time (partial unique
    index).
    """

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint("kind IN ('train', 'unlearn', 'evaluate')", name="kind"),
        CheckConstraint(
            "status IN ('queued', 'preparing', 'running', 'auditing', 'succeeded', 'failed',"
            " 'cancelling', 'cancelled')",
            name="status",
        ),
        Index(
            "uq_jobs_active_lineage_id",
            "lineage_id",
            unique=True,
            postgresql_where="status IN ('preparing', 'running', 'auditing', 'cancelling')",
        ),
        Index("ix_jobs_open", "status", postgresql_where="finished_time IS NULL"),
        Index("ix_jobs_lineage_id", "lineage_id"),
    )

    job_id: Mapped[Key]
    kind: Mapped[str] = mapped_column(String(10))
    status: Mapped[str] = mapped_column(String(12), default="queued")
    model_id: Mapped[str] = mapped_column(ForeignKey("models.model_id"))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.dataset_id"))
    # A training job starts a lineage of its own: its lineage_id is the id its version will have.
    lineage_id: Mapped[str] = mapped_column(String(40))
    input_version_id: Mapped[str | None] = mapped_column(ForeignKey("versions.version_id"))
    output_version_id: Mapped[str | None] = mapped_column(ForeignKey("versions.version_id"))
    # What to run: family, task, config, training; or method, params, update, objective,
    # reference_models; seed.
    spec: Mapped[dict[str, Any]] = mapped_column(JSONB)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    max_attempts: Mapped[int] = mapped_column(Integer, default=3)
    fencing_token: Mapped[int] = mapped_column(BigInteger, default=0)
    worker: Mapped[str | None] = mapped_column(String(200))
    lease_expires_time: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    dispatched_time: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    dispatches: Mapped[int] = mapped_column(Integer, default=0)
    # Of a queued job whose last attempt broke off: nobody may claim it before.
    retry_time: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    progress: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    result: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    created_time: Mapped[Created]
    started_time: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    finished_time: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    updated_time: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.now(), onupdate=func.now()
    )


class Attempt(Table):
    """One claim of a job by a worker and how it ended; ``number`` is the claim's fencing token."""

    __tablename__ = "attempts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.job_id"), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True)
    worker: Mapped[str] = mapped_column(String(200))
    started_time: Mapped[Created]
    ended_time: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    outcome: Mapped[str | None] = mapped_column(String(20))
    reason: Mapped[str | None] = mapped_column(Text)


class JobEvent(Table):
    """A point of a job's history: a change of status or a progress report with losses."""

    __tablename__ = "job_events"
    __table_args__ = (Index("ix_job_events_job_id", "job_id", "event_id"),)

    event_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.job_id"))
    kind: Mapped[str] = mapped_column(String(20))
    data: Mapped[dict[str, Any]] = mapped_column(JSONB)
    created_time: Mapped[Created]
