"""The log appends by one function, and nothing in it can be changed or removed.

Revision ID: 0002
Revises: 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

# RFC 6962, section 2.1: leaf hash SHA-256(0x00 || body), node hash SHA-256(0x01 || left || right).
# The row of ledger_state is the lock: it is taken here and held until the transaction ends, so
# indices have no gaps and a rolled back transaction leaves nothing behind.
APPEND = r"""
CREATE FUNCTION lethe_append(leaf_kind text, leaf_subject text, leaf_body bytea)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    new_index bigint;
    node bytea;
    sibling bytea;
    node_level smallint := 0;
    node_position bigint;
BEGIN
    UPDATE ledger_state SET size = size + 1 RETURNING size - 1 INTO STRICT new_index;
    node := sha256('\x00'::bytea || leaf_body);
    node_position := new_index;
    INSERT INTO ledger_leaves (leaf_index, kind, subject, body, leaf_hash)
        VALUES (new_index, leaf_kind, leaf_subject, leaf_body, node);
    INSERT INTO ledger_nodes (level, position, hash) VALUES (0, node_position, node);
    WHILE node_position % 2 = 1 LOOP
        SELECT hash INTO STRICT sibling FROM ledger_nodes
            WHERE level = node_level AND position = node_position - 1;
        node := sha256('\x01'::bytea || sibling || node);
        node_level := node_level + 1;
        node_position := node_position / 2;
        INSERT INTO ledger_nodes (level, position, hash)
            VALUES (node_level, node_position, node);
    END LOOP;
    RETURN new_index;
END
$$
"""

REFUSE = """
CREATE FUNCTION lethe_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on % is refused: the log is append-only', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$$
"""

# The size may only grow, one leaf at a time.
REFUSE_STATE = """
CREATE FUNCTION lethe_refuse_shrink() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.size <> OLD.size + 1 THEN
        RAISE EXCEPTION 'the log has % leaves, not to be set to %: it grows by one at a time',
            OLD.size, NEW.size USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END
$$
"""

APPEND_ONLY = ("ledger_leaves", "ledger_nodes", "ledger_tree_heads")


def _guard(table: str, events: str) -> None:
    # ALWAYS: session_replication_role = replica does not get round it.
    op.execute(
        f"CREATE TRIGGER {table}_append_only BEFORE {events} ON {table}"
        " FOR EACH STATEMENT EXECUTE FUNCTION lethe_refuse_change()"
    )
    op.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {table}_append_only")


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute(
        "INSERT INTO ledger_state (singleton, size) SELECT true, count(*) FROM ledger_leaves"
        " ON CONFLICT DO NOTHING"
    )
    op.execute(APPEND)
    op.execute(REFUSE)
    op.execute(REFUSE_STATE)
    for table in APPEND_ONLY:
        _guard(table, "UPDATE OR DELETE OR TRUNCATE")
        op.execute(f"REVOKE UPDATE, DELETE, TRUNCATE ON {table} FROM PUBLIC, CURRENT_USER")
    _guard("ledger_state", "DELETE OR TRUNCATE")
    op.execute(
        "CREATE TRIGGER ledger_state_grows BEFORE UPDATE ON ledger_state"
        " FOR EACH ROW EXECUTE FUNCTION lethe_refuse_shrink()"
    )
    op.execute("ALTER TABLE ledger_state ENABLE ALWAYS TRIGGER ledger_state_grows")


def downgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '5s'")
    op.execute("DROP TRIGGER ledger_state_grows ON ledger_state")
    for table in (*APPEND_ONLY, "ledger_state"):
        op.execute(f"DROP TRIGGER {table}_append_only ON {table}")
    for table in APPEND_ONLY:
        op.execute(f"GRANT UPDATE, DELETE, TRUNCATE ON {table} TO CURRENT_USER")
    op.execute("DROP FUNCTION lethe_append(text, text, bytea)")
    op.execute("DROP FUNCTION lethe_refuse_change()")
    op.execute("DROP FUNCTION lethe_refuse_shrink()")
