"""Deletion requests, the pairs that they name, and the jobs that meet them."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.core.tables import Created, Key, Table

# The condition of the partial index, which a query has to repeat word for word: with parameters in
# it, no plan could know that the index has all of the rows.
UNDER_WAY = "status IN ('pending', 'in_progress')"


class DeletionRequest(Table):
    """The legal obligation: what must be forgotten, why, by when."""

    __tablename__ = "deletion_requests"
    __table_args__ = (
        CheckConstraint(
            "status IN ('pending', 'in_progress', 'needs_attention', 'on_hold', 'completed',"
            " 'denied', 'cancelled')",
            name="status",
        ),
        CheckConstraint("scope IN ('association', 'unimodal', 'full')", name="scope"),
        CheckConstraint("reference_models >= 0", name="reference_models"),
        Index("ix_deletion_requests_dataset_id", "dataset_id", "request_id"),
        Index("ix_deletion_requests_named_total", "dataset_id", "named_total"),
        Index("ix_deletion_requests_under_way", "request_id", postgresql_where=text(UNDER_WAY)),
    )

    request_id: Mapped[Key]
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.dataset_id"))
    status: Mapped[str] = mapped_column(String(20))
    reason: Mapped[str | None] = mapped_column(Text)
    scope: Mapped[str] = mapped_column(String(12))
    objective: Mapped[str] = mapped_column(String(12))
    method: Mapped[str] = mapped_column(String(40))
    update: Mapped[str] = mapped_column(String(10))
    params: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    # Asked for; a job that several requests share makes the largest number of them.
    reference_models: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))
    # The versions that the caller listed; None means every one that learned from the dataset.
    versions: Mapped[list[str] | None] = mapped_column(JSONB)
    pair_count: Mapped[int] = mapped_column(BigInteger)
    # Pairs named on the dataset up to this request, repeated ones counted again: while this upper
    # bound is below the number of training pairs, nobody has to count whether anything would be
    # left to train on.
    named_total: Mapped[int] = mapped_column(BigInteger, default=0)
    # Counted when the request is accepted, with its dataset held; see the schema.
    already_forgotten_count: Mapped[int] = mapped_column(BigInteger, default=0)
    not_trained_count: Mapped[int] = mapped_column(BigInteger, default=0)
    # Salt of the pairs' HMACs in leaves and certificate; delete it and they can be linked to
    # nobody.
    salt: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    # Set where every pair had been forgotten before: the request whose certificate holds for this
    # one.
    met_by_request_id: Mapped[str | None] = mapped_column(String(40))
    status_reason: Mapped[str | None] = mapped_column(Text)
    submitted_by: Mapped[str] = mapped_column(String(40))
    submitted_time: Mapped[Created]
    deadline: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    completed_time: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    # The DSSE envelope and ledger evidence, written once, when the request completes.
    certificate: Mapped[dict[str, Any] | None] = mapped_column(JSONB)

    @property
    def audit(self) -> dict[str, int]:
        """What is to be measured beyond what every audit measures, as the caller wrote it."""
        return {"reference_models": self.reference_models}


class RequestPair(Table):
    """A pair that a request names (once, however often it was repeated)."""

    __tablename__ = "deletion_request_pairs"
    __table_args__ = (Index("ix_deletion_request_pairs_pair_id", "dataset_id", "pair_id"),)

    request_id: Mapped[str] = mapped_column(
        ForeignKey("deletion_requests.request_id"), primary_key=True
    )
    pair_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    dataset_id: Mapped[str] = mapped_column(String(40))


class RequestJob(Table):
    """What a job means to a request.

    ``forget``: an unlearning job forgets the request's pairs (one or more requests share a job).
    ``excluded``: a training job started after the request and left its pairs out.
    ``awaits``: a training job was running when the request came; its version will be given an
    unlearning job once it is there.
    """

    __tablename__ = "deletion_request_jobs"
    __table_args__ = (
        CheckConstraint("relation IN ('forget', 'excluded', 'awaits')", name="relation"),
        Index("ix_deletion_request_jobs_job_id", "job_id"),
    )

    request_id: Mapped[str] = mapped_column(
        ForeignKey("deletion_requests.request_id"), primary_key=True
    )
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.job_id"), primary_key=True)
    relation: Mapped[str] = mapped_column(String(10), default="forget")
