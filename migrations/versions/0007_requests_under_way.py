"""Requests that are under way are found by an index, however many have been completed.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

INDEX = "ix_deletion_requests_under_way"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.create_index(
        INDEX,
        "deletion_requests",
        ["request_id"],
        postgresql_where=sa.text("status IN ('pending', 'in_progress')"),
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_index(INDEX, "deletion_requests")
