"""Models, their versions and the files of each version."""

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
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.core.tables import Created, Key, Table


class Model(Table):
    """An ML model: a name for a series of versions of one family and task."""

    __tablename__ = "models"

    model_id: Mapped[Key]
    name: Mapped[str] = mapped_column(String(200), unique=True)
    family: Mapped[str] = mapped_column(String(40))
    task: Mapped[str] = mapped_column(String(40))
    created_time: Mapped[Created]


class Version(Table):
    """One immutable set of weights.

    A lineage starts at a trained or uploaded version and goes on by unlearning, each version from
    the newest before it, so that deletions add up; ``lineage_id`` is the id of its first version.
    """

    __tablename__ = "versions"
    __table_args__ = (
        CheckConstraint("source IN ('training', 'upload', 'unlearning')", name="source"),
        CheckConstraint("status IN ('uploading', 'ready', 'retired')", name="status"),
        UniqueConstraint("model_id", "number"),
        Index("ix_versions_dataset_id", "dataset_id"),
        Index("ix_versions_lineage_id", "lineage_id"),
        Index(
            "uq_versions_parent_id",
            "parent_id",
            unique=True,
            postgresql_where="parent_id IS NOT NULL",
        ),
    )

    version_id: Mapped[Key]
    model_id: Mapped[str] = mapped_column(ForeignKey("models.model_id"))
    number: Mapped[int] = mapped_column(Integer)
    lineage_id: Mapped[str] = mapped_column(String(40))
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("versions.version_id"))
    dataset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.dataset_id"))
    source: Mapped[str] = mapped_column(String(12))
    status: Mapped[str] = mapped_column(String(10))
    checkpoint_sha256: Mapped[str | None] = mapped_column(String(64))
    weights_sha256: Mapped[str | None] = mapped_column(String(64))
    # What a retraining needs: family config, training recipe, seed.
    recipe: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    # An uploaded version that asks for an audit as soon as it is ready.
    evaluate: Mapped[bool] = mapped_column(default=False)
    job_id: Mapped[str | None] = mapped_column(String(40))
    created_time: Mapped[Created]
    ready_time: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    retired_time: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class VersionFile(Table):
    """One file of a version's checkpoint, stored under the checkpoint's digest."""

    __tablename__ = "version_files"

    version_id: Mapped[str] = mapped_column(ForeignKey("versions.version_id"), primary_key=True)
    path: Mapped[str] = mapped_column(String(255), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(BigInteger)
    location: Mapped[str] = mapped_column(Text)
    created_time: Mapped[Created]
