"""Deletion requests say how many reference models their audits are to have.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

CHECK = "ck_deletion_requests_reference_models"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # The default is the server's own, so that a service of the release before can still write.
    op.add_column(
        "deletion_requests",
        sa.Column("reference_models", sa.Integer(), nullable=False, server_default=sa.text("0")),
    )
    op.create_check_constraint(op.f(CHECK), "deletion_requests", "reference_models >= 0")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.drop_constraint(op.f(CHECK), "deletion_requests")
    op.drop_column("deletion_requests", "reference_models")
