"""Revision 0019: the rate of an account to one person."""

from spine.kernel.migrations.tenancy import script, tenant_table

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    script(
        """
        ALTER TABLE spine.provider_accounts ADD COLUMN recipient_rate jsonb;
        COMMENT ON COLUMN spine.provider_accounts.recipient_rate IS 'How often it writes to one person: interval_s, burst.';

        -- What an account with such a rate has sent to one address. A row whose times have passed says nothing, and is deleted.
        CREATE TABLE spine.recipient_paces (
            workspace_id text COLLATE "C" NOT NULL,
            account_id text COLLATE "C" NOT NULL,
            recipient text COLLATE "C" NOT NULL,
            used_until timestamptz NOT NULL,
            queued_until timestamptz NOT NULL,
            PRIMARY KEY (workspace_id, account_id, recipient),
            FOREIGN KEY (workspace_id, account_id) REFERENCES spine.provider_accounts (workspace_id, id)
        ) WITH (fillfactor = 70);
        CREATE INDEX recipient_paces_over ON spine.recipient_paces (greatest(used_until, queued_until));
        COMMENT ON COLUMN spine.recipient_paces.used_until IS 'When the messages sent so far are made up for.';
        COMMENT ON COLUMN spine.recipient_paces.queued_until IS 'When the last message that waits has its turn.';
        """
        + tenant_table("spine.recipient_paces", app="SELECT, UPDATE", worker="SELECT, INSERT, UPDATE, DELETE")
    )


def downgrade() -> None:
    script(
        """
        DROP TABLE spine.recipient_paces;
        ALTER TABLE spine.provider_accounts DROP COLUMN recipient_rate;
        """
    )
