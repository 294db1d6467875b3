"""Datasets say what their manifests hold, by which a training that cannot be is refused at once.

Nothing is filled in for manifests that are there: their labels stand in no table.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

COLUMNS = {
    "items_per_pair": sa.Integer(),
    "item_count": sa.BigInteger(),
    "label_classes": sa.Integer(),
}


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for name, kind in COLUMNS.items():
        op.add_column("datasets", sa.Column(name, kind))


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for name in COLUMNS:
        op.drop_column("datasets", name)
