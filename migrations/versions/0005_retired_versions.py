"""Versions can be retired, and the number of pairs named on a dataset is found by an index.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# The naming convention was applied to a name that followed it already.
STATUS_CHECK = "ck_versions_ck_versions_status"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.add_column("versions", sa.Column("retired_time", sa.DateTime(timezone=True)))
    _set_statuses("'uploading', 'ready', 'retired'")
    op.create_index(
        "ix_deletion_requests_named_total", "deletion_requests", ["dataset_id", "named_total"]
    )


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    # What came before knows no retired versions; the ledger still says which ones were.
    op.execute("UPDATE versions SET status = 'ready' WHERE status = 'retired'")
    op.drop_index("ix_deletion_requests_named_total", "deletion_requests")
    _set_statuses("'uploading', 'ready'")
    op.drop_column("versions", "retired_time")


def _set_statuses(known: str) -> None:
    name = op.f(STATUS_CHECK)
    op.drop_constraint(name, "versions")
    op.create_check_constraint(name, "versions", f"status IN ({known})")
