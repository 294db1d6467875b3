"""The tables of the service; what makes the ledger append-only comes with the next migration."""

from datetime import datetime

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0001"
down_revision = None

TIME = sa.DateTime(timezone=True)
TABLES = (
    "datasets",
    "idempotency_keys",
    "ledger_leaves",
    "ledger_nodes",
    "ledger_state",
    "ledger_tree_heads",
    "models",
    "tokens",
    "deletion_requests",
    "pairs",
    "versions",
    "deletion_request_pairs",
    "jobs",
    "version_files",
    "attempts",
    "audits",
    "deletion_request_jobs",
    "job_events",
)


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    _create_datasets()
    _create_idempotency_keys()
    _create_ledger_leaves()
    _create_ledger_nodes()
    _create_ledger_state()
    _create_ledger_tree_heads()
    _create_models()
    _create_tokens()
    _create_deletion_requests()
    _create_pairs()
    _create_versions()
    _create_deletion_request_pairs()
    _create_jobs()
    _create_version_files()
    _create_attempts()
    _create_audits()
    _create_deletion_request_jobs()
    _create_job_events()


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    for table in reversed(TABLES):
        op.drop_table(table)


def _now(name: str) -> sa.Column[datetime]:
    return sa.Column(name, TIME, server_default=sa.text("now()"), nullable=False)


def _create_datasets() -> None:
    op.create_table(
        "datasets",
        sa.Column("dataset_id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("modality", sa.String(length=10), nullable=False),
        sa.Column("root", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=10), nullable=False),
        sa.Column("manifest_sha256", sa.String(length=64)),
        sa.Column("manifest_path", sa.Text()),
        sa.Column("pair_count", sa.BigInteger(), nullable=False),
        sa.Column("split_counts", JSONB(), nullable=False),
        sa.Column("classes", sa.Integer()),
        _now("created_time"),
        sa.CheckConstraint("modality IN ('image', 'graph')", name="ck_datasets_modality"),
        sa.CheckConstraint("status IN ('empty', 'ready')", name="ck_datasets_status"),
        sa.PrimaryKeyConstraint("dataset_id", name="pk_datasets"),
        sa.UniqueConstraint("name", name="uq_datasets_name"),
    )


def _create_idempotency_keys() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("token_id", sa.String(length=40), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("request_sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("headers", JSONB(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        _now("created_time"),
        sa.PrimaryKeyConstraint("token_id", "key", name="pk_idempotency_keys"),
    )
    op.create_index("ix_idempotency_keys_created_time", "idempotency_keys", ["created_time"])


def _create_ledger_leaves() -> None:
    op.create_table(
        "ledger_leaves",
        sa.Column("leaf_index", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("subject", sa.String(length=40), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary(length=32), nullable=False),
        _now("created_time"),
        sa.PrimaryKeyConstraint("leaf_index", name="pk_ledger_leaves"),
    )
    op.create_index("ix_ledger_leaves_kind", "ledger_leaves", ["kind"])
    op.create_index("ix_ledger_leaves_subject", "ledger_leaves", ["subject"])


def _create_ledger_nodes() -> None:
    op.create_table(
        "ledger_nodes",
        sa.Column("level", sa.SmallInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("level", "position", name="pk_ledger_nodes"),
    )


def _create_ledger_state() -> None:
    op.create_table(
        "ledger_state",
        sa.Column("singleton", sa.Boolean(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("singleton", name="ck_ledger_state_singleton"),
        sa.PrimaryKeyConstraint("singleton", name="pk_ledger_state"),
    )


def _create_ledger_tree_heads() -> None:
    op.create_table(
        "ledger_tree_heads",
        sa.Column("size", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("root", sa.LargeBinary(length=32), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        _now("created_time"),
        sa.PrimaryKeyConstraint("size", name="pk_ledger_tree_heads"),
    )


def _create_models() -> None:
    op.create_table(
        "models",
        sa.Column("model_id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("family", sa.String(length=40), nullable=False),
        sa.Column("task", sa.String(length=40), nullable=False),
        _now("created_time"),
        sa.PrimaryKeyConstraint("model_id", name="pk_models"),
        sa.UniqueConstraint("name", name="uq_models_name"),
    )


def _create_tokens() -> None:
    op.create_table(
        "tokens",
        sa.Column("token_id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("scopes", ARRAY(sa.String(length=40)), nullable=False),
        _now("created_time"),
        sa.Column("expires_time", TIME),
        sa.Column("revoked_time", TIME),
        sa.PrimaryKeyConstraint("token_id", name="pk_tokens"),
        sa.UniqueConstraint("secret_sha256", name="uq_tokens_secret_sha256"),
    )


def _create_deletion_requests() -> None:
    op.create_table(
        "deletion_requests",
        sa.Column("request_id", sa.String(length=40), nullable=False),
        sa.Column("dataset_id", sa.String(length=40), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("scope", sa.String(length=12), nullable=False),
        sa.Column("objective", sa.String(length=12), nullable=False),
        sa.Column("method", sa.String(length=40), nullable=False),
        sa.Column("update", sa.String(length=10), nullable=False),
        sa.Column("params", JSONB(), nullable=False),
        sa.Column("versions", JSONB()),
        sa.Column("pair_count", sa.BigInteger(), nullable=False),
        sa.Column("named_total", sa.BigInteger(), nullable=False),
        sa.Column("already_forgotten_count", sa.BigInteger(), nullable=False),
        sa.Column("not_trained_count", sa.BigInteger(), nullable=False),
        sa.Column("salt", sa.LargeBinary(length=32)),
        sa.Column("met_by_request_id", sa.String(length=40)),
        sa.Column("status_reason", sa.Text()),
        sa.Column("submitted_by", sa.String(length=40), nullable=False),
        _now("submitted_time"),
        sa.Column("deadline", TIME, nullable=False),
        sa.Column("completed_time", TIME),
        sa.Column("certificate", JSONB()),
        sa.CheckConstraint(
            "scope IN ('association', 'unimodal', 'full')", name="ck_deletion_requests_scope"
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'in_progress', 'needs_attention', 'on_hold', 'completed',"
            " 'denied', 'cancelled')",
            name="ck_deletion_requests_status",
        ),
        sa.ForeignKeyConstraint(
            ["dataset_id"],
            ["datasets.dataset_id"],
            name="fk_deletion_requests_dataset_id_datasets",
        ),
        sa.PrimaryKeyConstraint("request_id", name="pk_deletion_requests"),
    )
    op.create_index(
        "ix_deletion_requests_dataset_id",
        "deletion_requests",
        ["dataset_id", "request_id"],
    )


def _create_pairs() -> None:
    op.create_table(
        "pairs",
        sa.Column("dataset_id", sa.String(length=40), nullable=False),
        sa.Column("pair_id", sa.String(length=255), nullable=False),
        sa.Column("item_id", sa.String(length=1024), nullable=False),
        sa.Column("second_item_id", sa.String(length=1024)),
        sa.Column("text_id", sa.String(length=255), nullable=False),
        sa.Column("split", sa.String(length=5), nullable=False),
        sa.CheckConstraint("split IN ('train', 'val', 'test')", name="ck_pairs_split"),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.dataset_id"], name="fk_pairs_dataset_id_datasets"
        ),
        sa.PrimaryKeyConstraint("dataset_id", "pair_id", name="pk_pairs"),
    )
    op.create_index("ix_pairs_item_id", "pairs", ["dataset_id", "item_id"])
    op.create_index(
        "ix_pairs_second_item_id",
        "pairs",
        ["dataset_id", "second_item_id"],
        postgresql_where="second_item_id IS NOT NULL",
    )
    op.create_index("ix_pairs_text_id", "pairs", ["dataset_id", "text_id"])


def _create_versions() -> None:
    op.create_table(
        "versions",
        sa.Column("version_id", sa.String(length=40), nullable=False),
        sa.Column("model_id", sa.String(length=40), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("lineage_id", sa.String(length=40), nullable=False),
        sa.Column("parent_id", sa.String(length=40)),
        sa.Column("dataset_id", sa.String(length=40)),
        sa.Column("source", sa.String(length=12), nullable=False),
        sa.Column("status", sa.String(length=10), nullable=False),
        sa.Column("checkpoint_sha256", sa.String(length=64)),
        sa.Column("weights_sha256", sa.String(length=64)),
        sa.Column("recipe", JSONB(), nullable=False),
        sa.Column("evaluate", sa.Boolean(), nullable=False),
        sa.Column("contains_deleted", sa.BigInteger(), nullable=False),
        sa.Column("job_id", sa.String(length=40)),
        _now("created_time"),
        sa.Column("ready_time", TIME),
        sa.CheckConstraint(
            "source IN ('training', 'upload', 'unlearning')", name="ck_versions_source"
        ),
        sa.CheckConstraint("status IN ('uploading', 'ready')", name="ck_versions_status"),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.dataset_id"], name="fk_versions_dataset_id_datasets"
        ),
        sa.ForeignKeyConstraint(
            ["model_id"], ["models.model_id"], name="fk_versions_model_id_models"
        ),
        sa.ForeignKeyConstraint(
            ["parent_id"], ["versions.version_id"], name="fk_versions_parent_id_versions"
        ),
        sa.PrimaryKeyConstraint("version_id", name="pk_versions"),
        sa.UniqueConstraint("model_id", "number", name="uq_versions_model_id_number"),
    )
    op.create_index("ix_versions_dataset_id", "versions", ["dataset_id"])
    op.create_index("ix_versions_lineage_id", "versions", ["lineage_id"])
    op.create_index(
        "uq_versions_parent_id",
        "versions",
        ["parent_id"],
        unique=True,
        postgresql_where="parent_id IS NOT NULL",
    )


def _create_deletion_request_pairs() -> None:
    op.create_table(
        "deletion_request_pairs",
        sa.Column("request_id", sa.String(length=40), nullable=False),
        sa.Column("pair_id", sa.String(length=255), nullable=False),
        sa.Column("dataset_id", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(
            ["request_id"],
            ["deletion_requests.request_id"],
            name="fk_deletion_request_pairs_request_id_deletion_requests",
        ),
        sa.PrimaryKeyConstraint("request_id", "pair_id", name="pk_deletion_request_pairs"),
    )
    op.create_index(
        "ix_deletion_request_pairs_pair_id",
        "deletion_request_pairs",
        ["dataset_id", "pair_id"],
    )


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("status", sa.String(length=12), nullable=False),
        sa.Column("model_id", sa.String(length=40), nullable=False),
        sa.Column("dataset_id", sa.String(length=40), nullable=False),
        sa.Column("lineage_id", sa.String(length=40), nullable=False),
        sa.Column("input_version_id", sa.String(length=40)),
        sa.Column("output_version_id", sa.String(length=40)),
        sa.Column("spec", JSONB(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("fencing_token", sa.BigInteger(), nullable=False),
        sa.Column("worker", sa.String(length=200)),
        sa.Column("lease_expires_time", TIME),
        sa.Column("dispatched_time", TIME),
        sa.Column("dispatches", sa.Integer(), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("progress", JSONB(), nullable=False),
        sa.Column("result", JSONB()),
        sa.Column("error", JSONB()),
        _now("created_time"),
        sa.Column("started_time", TIME),
        sa.Column("finished_time", TIME),
        _now("updated_time"),
        sa.CheckConstraint("kind IN ('train', 'unlearn', 'evaluate')", name="ck_jobs_kind"),
        sa.CheckConstraint(
            "status IN ('queued', 'preparing', 'running', 'auditing', 'succeeded', 'failed',"
            " 'cancelling', 'cancelled')",
            name="ck_jobs_status",
        ),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.dataset_id"], name="fk_jobs_dataset_id_datasets"
        ),
        sa.ForeignKeyConstraint(
            ["input_version_id"],
            ["versions.version_id"],
            name="fk_jobs_input_version_id_versions",
        ),
        sa.ForeignKeyConstraint(["model_id"], ["models.model_id"], name="fk_jobs_model_id_models"),
        sa.ForeignKeyConstraint(
            ["output_version_id"],
            ["versions.version_id"],
            name="fk_jobs_output_version_id_versions",
        ),
        sa.PrimaryKeyConstraint("job_id", name="pk_jobs"),
    )
    op.create_index("ix_jobs_lineage_id", "jobs", ["lineage_id"])
    op.create_index("ix_jobs_open", "jobs", ["status"], postgresql_where="finished_time IS NULL")
    op.create_index(
        "uq_jobs_active_lineage_id",
        "jobs",
        ["lineage_id"],
        unique=True,
        postgresql_where="status IN ('preparing', 'running', 'auditing', 'cancelling')",
    )


def _create_version_files() -> None:
    op.create_table(
        "version_files",
        sa.Column("version_id", sa.String(length=40), nullable=False),
        sa.Column("path", sa.String(length=255), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        _now("created_time"),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["versions.version_id"],
            name="fk_version_files_version_id_versions",
        ),
        sa.PrimaryKeyConstraint("version_id", "path", name="pk_version_files"),
    )


def _create_attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String(length=200), nullable=False),
        _now("started_time"),
        sa.Column("ended_time", TIME),
        sa.Column("outcome", sa.String(length=20)),
        sa.Column("reason", sa.Text()),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], name="fk_attempts_job_id_jobs"),
        sa.PrimaryKeyConstraint("job_id", "number", name="pk_attempts"),
    )


def _create_audits() -> None:
    op.create_table(
        "audits",
        sa.Column("audit_id", sa.String(length=40), nullable=False),
        sa.Column("version_id", sa.String(length=40), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("objective", sa.String(length=12)),
        sa.Column("metrics", JSONB(), nullable=False),
        sa.Column("cost", JSONB(), nullable=False),
        sa.Column("environment", JSONB(), nullable=False),
        _now("created_time"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], name="fk_audits_job_id_jobs"),
        sa.ForeignKeyConstraint(
            ["version_id"], ["versions.version_id"], name="fk_audits_version_id_versions"
        ),
        sa.PrimaryKeyConstraint("audit_id", name="pk_audits"),
        sa.UniqueConstraint("job_id", name="uq_audits_job_id"),
    )
    op.create_index("ix_audits_version_id", "audits", ["version_id"])


def _create_deletion_request_jobs() -> None:
    op.create_table(
        "deletion_request_jobs",
        sa.Column("request_id", sa.String(length=40), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("relation", sa.String(length=10), nullable=False),
        sa.CheckConstraint(
            "relation IN ('forget', 'excluded', 'awaits')",
            name="ck_deletion_request_jobs_relation",
        ),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.job_id"], name="fk_deletion_request_jobs_job_id_jobs"
        ),
        sa.ForeignKeyConstraint(
            ["request_id"],
            ["deletion_requests.request_id"],
            name="fk_deletion_request_jobs_request_id_deletion_requests",
        ),
        sa.PrimaryKeyConstraint("request_id", "job_id", name="pk_deletion_request_jobs"),
    )
    op.create_index("ix_deletion_request_jobs_job_id", "deletion_request_jobs", ["job_id"])


def _create_job_events() -> None:
    op.create_table(
        "job_events",
        sa.Column("event_id", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("data", JSONB(), nullable=False),
        _now("created_time"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], name="fk_job_events_job_id_jobs"),
        sa.PrimaryKeyConstraint("event_id", name="pk_job_events"),
    )
    op.create_index("ix_job_events_job_id", "job_events", ["job_id", "event_id"])
