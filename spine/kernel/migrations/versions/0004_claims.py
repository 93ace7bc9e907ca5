"""Revision 0004: indexes for claims that take turns over workspaces."""

from spine.kernel.migrations.tenancy import script

revision = "0004_claims"
down_revision = "0003"


def upgrade() -> None:
    script("""
        DROP INDEX spine.deliveries_open_due;
        -- Rows without a lease, over all workspaces. The condition on the state is always true. A statement that wants one
        -- workspace leaves it out: then the planner cannot take this index and walk over the rows of all others.
        CREATE INDEX deliveries_open_due ON spine.deliveries_open (due_at)
            WHERE leased_by IS NULL AND due_at < 'infinity' AND state <> 'held';
        CREATE INDEX deliveries_open_turns ON spine.deliveries_open (workspace_id, due_at) WHERE leased_by IS NULL AND due_at < 'infinity';
        CREATE INDEX deliveries_open_leased ON spine.deliveries_open (due_at) WHERE leased_by IS NOT NULL;
    """)


def downgrade() -> None:
    script("""
        DROP INDEX spine.deliveries_open_due, spine.deliveries_open_turns, spine.deliveries_open_leased;
        CREATE INDEX deliveries_open_due ON spine.deliveries_open (due_at) WHERE due_at < 'infinity';
    """)
