"""Revision 0018: templates that providers hold, whom an attempt went to, polls of providers, the pace of an account's calls, costs."""

from spine.kernel.migrations.tenancy import script, tenant_table

revision = "0018"
down_revision = "0017"

SPEND = """
ALTER TABLE spine.quotas DROP CONSTRAINT quotas_name_check, ADD CONSTRAINT quotas_name_check CHECK (name IN ('messages', 'spend'));

-- What a call cost is taken off the quota of money.
CREATE FUNCTION spine.quotas_count_costs() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM spine.quota_add(c.workspace_id, 'spend', c.n, false, NULL) FROM (
        SELECT a.workspace_id, sum(coalesce(a.cost_micros, 0) - coalesce(b.cost_micros, 0))::bigint AS n
          FROM before b JOIN after a ON a.workspace_id = b.workspace_id AND a.id = b.id
         WHERE a.cost_micros IS DISTINCT FROM b.cost_micros GROUP BY a.workspace_id ORDER BY a.workspace_id) c;
    RETURN NULL;
END $$;
CREATE TRIGGER quotas_count_costs AFTER UPDATE ON spine.attempts REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION spine.quotas_count_costs();

-- While the money of a period is spent, no message is accepted.
CREATE FUNCTION spine.quotas_bound_spend() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    q spine.quotas;
BEGIN
    SELECT o.* INTO q FROM spine.quotas o
     WHERE o.workspace_id IN (SELECT workspace_id FROM added) AND o.name = 'spend' AND o.used >= o.limit AND o.resets_at > now() LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'SP429',
            MESSAGE = format('the money of this %s is spent until %s', q.period,
                             to_char(q.resets_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')),
            DETAIL = ceil(extract(epoch FROM q.resets_at - now()))::text;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER quotas_bound_spend AFTER INSERT ON spine.messages REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION spine.quotas_bound_spend();
"""


def upgrade() -> None:
    script(
        """
        ALTER TABLE spine.templates ADD COLUMN provider_templates jsonb NOT NULL DEFAULT '{}';
        COMMENT ON COLUMN spine.templates.provider_templates IS 'By kind of provider: its template for this one, and what fills it.';
        ALTER TABLE spine.attempts ADD COLUMN recipient text COLLATE "C";
        ALTER TABLE spine.attempts ADD COLUMN polled_at timestamptz;
        COMMENT ON COLUMN spine.attempts.polled_at IS 'When its provider was asked what became of it, because no receipt had come.';
        ALTER TABLE spine.attempts ADD COLUMN units smallint, ADD COLUMN cost_micros bigint;
        COMMENT ON COLUMN spine.attempts.units IS 'What is paid for: the parts of an SMS, else 1. Null without a price.';
        ALTER TABLE spine.provider_accounts ADD COLUMN unit_cost_micros bigint CHECK (unit_cost_micros > 0);
        COMMENT ON COLUMN spine.attempts.recipient IS 'The address, where the provider passes on replies.';
        CREATE INDEX attempts_recipient ON spine.attempts (workspace_id, provider_account_id, recipient, id) WHERE recipient IS NOT NULL;
        GRANT INSERT ON spine.contacts TO spine_worker;
        ALTER TABLE spine.provider_breakers ADD COLUMN degraded_until timestamptz;
        COMMENT ON COLUMN spine.provider_breakers.degraded_until IS 'Until when the account has a smaller share, because receipts are missing.';

        -- When the next call of an account with a rate may start, for all workers. Whoever claims its messages locks the row.
        CREATE TABLE spine.provider_paces (
            workspace_id text COLLATE "C" NOT NULL,
            account_id text COLLATE "C" NOT NULL,
            next_call_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            PRIMARY KEY (workspace_id, account_id),
            FOREIGN KEY (workspace_id, account_id) REFERENCES spine.provider_accounts (workspace_id, id)
        ) WITH (fillfactor = 50);
        """
        + SPEND
        + tenant_table("spine.provider_paces", app="SELECT", worker="SELECT, INSERT, UPDATE")
    )


def downgrade() -> None:
    script(
        """
        DROP TRIGGER quotas_bound_spend ON spine.messages;
        DROP TRIGGER quotas_count_costs ON spine.attempts;
        DROP FUNCTION spine.quotas_bound_spend, spine.quotas_count_costs;
        DELETE FROM spine.quotas WHERE name = 'spend';
        ALTER TABLE spine.quotas DROP CONSTRAINT quotas_name_check, ADD CONSTRAINT quotas_name_check CHECK (name IN ('messages'));
        ALTER TABLE spine.provider_accounts DROP COLUMN unit_cost_micros;
        DROP TABLE spine.provider_paces;
        ALTER TABLE spine.provider_breakers DROP COLUMN degraded_until;
        REVOKE INSERT ON spine.contacts FROM spine_worker;
        DROP INDEX spine.attempts_recipient;
        ALTER TABLE spine.attempts DROP COLUMN recipient, DROP COLUMN polled_at, DROP COLUMN units, DROP COLUMN cost_micros;
        ALTER TABLE spine.templates DROP COLUMN provider_templates;
        """
    )
