"""Revision 0018: templates that providers hold; whom an attempt went to, so that a reply that names none finds it."""

from spine.kernel.migrations.tenancy import script

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    script(
        """
        ALTER TABLE spine.templates ADD COLUMN provider_templates jsonb NOT NULL DEFAULT '{}';
        COMMENT ON COLUMN spine.templates.provider_templates IS 'By kind of provider: its template for this one, and what fills it.';
        ALTER TABLE spine.attempts ADD COLUMN recipient text COLLATE "C";
        COMMENT ON COLUMN spine.attempts.recipient IS 'The address, where the provider passes on replies.';
        CREATE INDEX attempts_recipient ON spine.attempts (workspace_id, provider_account_id, recipient, id) WHERE recipient IS NOT NULL;
        GRANT INSERT ON spine.contacts TO spine_worker;
        """
    )


def downgrade() -> None:
    script(
        """
        REVOKE INSERT ON spine.contacts FROM spine_worker;
        DROP INDEX spine.attempts_recipient;
        ALTER TABLE spine.attempts DROP COLUMN recipient;
        ALTER TABLE spine.templates DROP COLUMN provider_templates;
        """
    )
