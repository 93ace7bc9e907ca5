"""Revision 0008: indexes for claims that take turns over workspaces."""

from spine.kernel.migrations.tenancy import script

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    script("""
        DROP INDEX spine.deliveries_open_due;
        -- Rows without a lease and with a due time, in the order of all workspaces and of each workspace. The conditions mean
        -- the same in other words, so that each statement can use one of these indexes only. The planner would also take the
        -- other one, if the table was small when it made the plan, and walk over the rows of all workspaces.
        CREATE INDEX deliveries_open_due ON spine.deliveries_open (due_at)
            WHERE leased_by IS NULL AND state <> 'held' AND due_at <> 'infinity';
        CREATE INDEX deliveries_open_turns ON spine.deliveries_open (workspace_id, due_at)
            WHERE leased_by IS NULL AND due_at < 'infinity';
        -- Leases by their end. The condition on the state is always true. Without it, results would look up their rows here.
        CREATE INDEX deliveries_open_leased ON spine.deliveries_open (due_at) WHERE leased_by IS NOT NULL AND state <> 'held';
    """)


def downgrade() -> None:
    script("""
        DROP INDEX spine.deliveries_open_due, spine.deliveries_open_turns, spine.deliveries_open_leased;
        CREATE INDEX deliveries_open_due ON spine.deliveries_open (due_at) WHERE due_at < 'infinity';
    """)
