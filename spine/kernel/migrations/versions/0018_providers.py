"""Revision 0018: templates that providers hold, whom an attempt went to, polls of providers, the pace of an account's calls."""

from spine.kernel.migrations.tenancy import script, tenant_table

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    script(
        """
        ALTER TABLE spine.templates ADD COLUMN provider_templates jsonb NOT NULL DEFAULT '{}';
        COMMENT ON COLUMN spine.templates.provider_templates IS 'By kind of provider: its template for this one, and what fills it.';
        ALTER TABLE spine.attempts ADD COLUMN recipient text COLLATE "C";
        ALTER TABLE spine.attempts ADD COLUMN polled_at timestamptz;
        COMMENT ON COLUMN spine.attempts.polled_at IS 'When its provider was asked what became of it, because no receipt had come.';
        COMMENT ON COLUMN spine.attempts.recipient IS 'The address, where the provider passes on replies.';
        CREATE INDEX attempts_recipient ON spine.attempts (workspace_id, provider_account_id, recipient, id) WHERE recipient IS NOT NULL;
        GRANT INSERT ON spine.contacts TO spine_worker;

        -- When the next call of an account with a rate may start, for all workers. Whoever claims its messages locks the row.
        CREATE TABLE spine.provider_paces (
            workspace_id text COLLATE "C" NOT NULL,
            account_id text COLLATE "C" NOT NULL,
            next_call_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            PRIMARY KEY (workspace_id, account_id),
            FOREIGN KEY (workspace_id, account_id) REFERENCES spine.provider_accounts (workspace_id, id)
        ) WITH (fillfactor = 50);
        """
        + tenant_table("spine.provider_paces", app="SELECT", worker="SELECT, INSERT, UPDATE")
    )


def downgrade() -> None:
    script(
        """
        DROP TABLE spine.provider_paces;
        REVOKE INSERT ON spine.contacts FROM spine_worker;
        DROP INDEX spine.attempts_recipient;
        ALTER TABLE spine.attempts DROP COLUMN recipient, DROP COLUMN polled_at;
        ALTER TABLE spine.templates DROP COLUMN provider_templates;
        """
    )
