"""SQL for tenant tables: forced row-level security and the policies of the two roles (requirements P-14)."""

from alembic import op
from sqlalchemy.util import await_only

RESOURCE_COLUMNS = """
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    version integer NOT NULL DEFAULT 1,
    metadata jsonb NOT NULL DEFAULT '{}',
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (workspace_id, id)
"""
"""The last columns of every resource table (`spine.kernel.resource.TenantRow`)."""

OWN_WORKSPACE = "workspace_id = current_setting('app.ws', true)"


def script(sql: str) -> None:
    """Run several SQL statements in the migration's transaction.

    A prepared statement of the driver takes one statement; its simple query protocol takes a script.
    """
    op.execute("SET LOCAL lock_timeout = '10s'")  # also begins the transaction that the raw connection uses
    connection = op.get_bind().connection.driver_connection
    assert connection is not None
    await_only(connection.execute(sql))


def tenant_table(table: str, *, app: str, worker: str, own: str = OWN_WORKSPACE) -> str:
    """Return the row-level security of one tenant table. `app` and `worker` are the grants of the two roles, or empty."""
    grants = [
        f"GRANT {grant} ON {table} TO {role};"
        for grant, role in ((app, "spine_app"), (worker, "spine_worker"))
        if grant
    ]
    return f"""
        ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
        ALTER TABLE {table} FORCE ROW LEVEL SECURITY;
        CREATE POLICY own_workspace ON {table} TO spine_app USING ({own}) WITH CHECK ({own});
        CREATE POLICY every_workspace ON {table} TO spine_worker USING (true) WITH CHECK (true);
        {"".join(grants)}
    """


def product_table(table: str, *, app: str, worker: str = "SELECT, INSERT, UPDATE, DELETE") -> str:
    """Return the row-level security of a product's table: jobs, as the worker role, see only their own workspace too."""
    return (
        tenant_table(table, app=app, worker=worker)
        + f"ALTER POLICY every_workspace ON {table} USING ({OWN_WORKSPACE}) WITH CHECK ({OWN_WORKSPACE});"
        + f"ALTER POLICY every_workspace ON {table} RENAME TO own_workspace_of_job;"
    )


def compressed(table: str, column: str) -> str:
    """Return SQL that compresses large values of a column with lz4, if the server supports it.

    pglz, the default, takes 1.1 ms of CPU for 64 KiB; lz4 takes an eighth of that for about the same size. Partitions
    inherit the setting from their parent when they are created.
    """
    return f"""
        DO $$ BEGIN
            ALTER TABLE {table} ALTER COLUMN {column} SET COMPRESSION lz4;
        EXCEPTION WHEN feature_not_supported THEN NULL;
        END $$;
    """


def definer(function: str) -> str:
    """Return SQL that makes the worker role, whose policies cover all workspaces, owner of a SECURITY DEFINER function."""
    return f"""
        GRANT CREATE ON SCHEMA spine TO spine_worker;
        ALTER FUNCTION {function} OWNER TO spine_worker;
        REVOKE CREATE ON SCHEMA spine FROM spine_worker;
        REVOKE ALL ON FUNCTION {function} FROM PUBLIC;
        GRANT EXECUTE ON FUNCTION {function} TO spine_app, spine_worker;
    """
