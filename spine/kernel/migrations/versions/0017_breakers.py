"""Revision 0017: the circuit breakers of provider accounts, shared by all workers."""

from spine.kernel.migrations.tenancy import script, tenant_table

revision = "0017"
down_revision = "0016"

TABLE = """
-- An account without a row has a closed breaker. Every change of "state" raises "generation".
CREATE TABLE spine.provider_breakers (
    workspace_id text COLLATE "C" NOT NULL,
    account_id text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL DEFAULT 'closed' CHECK (state IN ('closed', 'open', 'half_open', 'misconfigured')),
    generation bigint NOT NULL DEFAULT 0,
    opened_until timestamptz,
    reason text COLLATE "C",
    openings integer NOT NULL DEFAULT 0,
    successes integer NOT NULL DEFAULT 0,
    connect_failures integer NOT NULL DEFAULT 0,
    calls jsonb NOT NULL DEFAULT '[]',
    probe_until timestamptz,
    forced text COLLATE "C" CHECK (forced IN ('open', 'closed')),
    forced_until timestamptz,
    PRIMARY KEY (workspace_id, account_id),
    FOREIGN KEY (workspace_id, account_id) REFERENCES spine.provider_accounts (workspace_id, id),
    CHECK ((state = 'open') = (opened_until IS NOT NULL)),
    CHECK ((forced IS NULL) = (forced_until IS NULL))
) WITH (fillfactor = 50);
COMMENT ON COLUMN spine.provider_breakers.calls IS 'The calls of each second of the window: [second, calls, failures, slow ones].';
COMMENT ON COLUMN spine.provider_breakers.probe_until IS 'While half open: until when one worker has the only probe.';
COMMENT ON COLUMN spine.provider_breakers.forced IS 'What an operator has ordered until forced_until, whatever the calls say.';
"""


def upgrade() -> None:
    grant = "SELECT, INSERT, UPDATE"
    script(TABLE + tenant_table("spine.provider_breakers", app=grant, worker=grant))


def downgrade() -> None:
    script("DROP TABLE spine.provider_breakers;")
