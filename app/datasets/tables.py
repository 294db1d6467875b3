"""Datasets and the pairs of their manifests."""

from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.core.tables import Created, Key, Table

SPLITS = ("train", "val", "test")
# Fewer pairs than these cannot be trained on: losses compare a pair with another one.
LEAST_TRAINING_PAIRS = 2


class Dataset(Table):
    """A registered dataset. Its manifest is put once; then it is ``ready`` and never changes."""

    __tablename__ = "datasets"
    __table_args__ = (
        CheckConstraint("modality IN ('image', 'graph')", name="modality"),
        CheckConstraint("status IN ('empty', 'ready')", name="status"),
    )

    dataset_id: Mapped[Key]
    name: Mapped[str] = mapped_column(String(200), unique=True)
    modality: Mapped[str] = mapped_column(String(10))
    root: Mapped[str] = mapped_column(Text)
    status: Mapped[str] = mapped_column(String(10), default="empty")
    manifest_sha256: Mapped[str | None] = mapped_column(String(64))
    manifest_path: Mapped[str | None] = mapped_column(Text)
    pair_count: Mapped[int] = mapped_column(BigInteger, default=0)
    split_counts: Mapped[dict[str, Any]] = mapped_column(JSONB, default=dict)
    classes: Mapped[int | None]
    # What the manifest was found to hold; None of an empty dataset, and of one whose manifest was
    # put before these were kept: then only a run finds out what does not fit.
    items_per_pair: Mapped[int | None]
    item_count: Mapped[int | None] = mapped_column(BigInteger)
    # One above the highest label; 0 without labels.
    label_classes: Mapped[int | None]
    created_time: Mapped[Created]


class DatasetPair(Table):
    """One row of a manifest: what a deletion request can name. Content stays in the manifest."""

    __tablename__ = "pairs"
    __table_args__ = (
        CheckConstraint("split IN ('train', 'val', 'test')", name="split"),
        Index("ix_pairs_item_id", "dataset_id", "item_id"),
        Index(
            "ix_pairs_second_item_id",
            "dataset_id",
            "second_item_id",
            postgresql_where="second_item_id IS NOT NULL",
        ),
        Index("ix_pairs_text_id", "dataset_id", "text_id"),
    )

    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.dataset_id"), primary_key=True)
    pair_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    item_id: Mapped[str] = mapped_column(String(1024))
    second_item_id: Mapped[str | None] = mapped_column(String(1024))
    text_id: Mapped[str] = mapped_column(String(255))
    split: Mapped[str] = mapped_column(String(5))
