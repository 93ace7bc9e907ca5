"""Revision 0006: turns of workspaces, messages that wait for an account, looks at parked receipts, clock offsets."""

from spine.kernel.migrations.tenancy import script

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    script("""
        ALTER TABLE spine.sends_open ADD COLUMN waits_for text COLLATE "C";
        COMMENT ON COLUMN spine.sends_open.waits_for IS
            'The provider account that the message waits for, for lack of a call; due_at is then the message''s deadline.';
        CREATE INDEX sends_open_workspace ON spine.sends_open (workspace_id, due_at);
        CREATE INDEX sends_open_waiting ON spine.sends_open (waits_for, accepted_at) WHERE waits_for IS NOT NULL;

        ALTER TABLE spine.receipts ADD COLUMN look_at timestamptz NOT NULL DEFAULT now();
        COMMENT ON COLUMN spine.receipts.look_at IS 'When a parked receipt is matched again.';
        CREATE INDEX receipts_look ON spine.receipts (look_at) WHERE attempt_id IS NULL;
        DROP INDEX spine.receipts_parked;

        ALTER TABLE spine.workers ADD COLUMN clock_offset_s double precision;
        COMMENT ON COLUMN spine.workers.clock_offset_s IS 'Seconds that this database''s clock is ahead of the worker''s.';
    """)


def downgrade() -> None:
    script("""
        ALTER TABLE spine.workers DROP COLUMN clock_offset_s;
        CREATE INDEX receipts_parked ON spine.receipts (workspace_id, provider_account_id, provider_message_id)
            WHERE attempt_id IS NULL;
        ALTER TABLE spine.receipts DROP COLUMN look_at;
        DROP INDEX spine.sends_open_workspace;
        ALTER TABLE spine.sends_open DROP COLUMN waits_for;
    """)
