"""Deleted pairs that a version still knows are counted when it is read: later requests name more of them.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# What came before counted them once, when the version was recorded; the ledger has that count.
_FILL = """
    UPDATE versions
    SET contains_deleted = CAST(
        CAST(convert_from(leaf.body, 'UTF8') AS jsonb) ->> 'contains_deleted' AS bigint)
    FROM ledger_leaves AS leaf
    WHERE leaf.kind = 'version_registered' AND leaf.subject = versions.version_id
"""


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_column("versions", "contains_deleted")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column(
        "versions",
        sa.Column("contains_deleted", sa.BigInteger(), nullable=False, server_default="0"),
    )
    op.execute(_FILL)
    op.alter_column("versions", "contains_deleted", server_default=None)
