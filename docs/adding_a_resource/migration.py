"""Routing rules of tickets. NEWEST and NEXT stand for the numbers of the newest revision and of this one."""

from alembic import op

from spine.kernel.migrations.tenancy import RESOURCE_COLUMNS, script, tenant_table

revision = "NEXT"
down_revision = "NEWEST"

TABLE = f"""
CREATE TABLE spine.routing_rules (
    workspace_id text COLLATE "C" NOT NULL REFERENCES spine.workspaces,
    id text COLLATE "C" NOT NULL,
    topic text COLLATE "C",
    owner_id text COLLATE "C" NOT NULL,
    {RESOURCE_COLUMNS},
    CONSTRAINT routing_rules_owner FOREIGN KEY (workspace_id, owner_id) REFERENCES spine.users (workspace_id, id),
    CONSTRAINT routing_rules_topic UNIQUE NULLS NOT DISTINCT (workspace_id, topic)
);
"""


def upgrade() -> None:
    script(TABLE + tenant_table("spine.routing_rules", app="SELECT, INSERT, UPDATE", worker="SELECT"))


def downgrade() -> None:
    op.execute("DROP TABLE spine.routing_rules")
