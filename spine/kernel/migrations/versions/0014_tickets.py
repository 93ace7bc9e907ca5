"""Revision 0014: tickets with their threads and evidence, routing rules, SLA policies and forms."""

from spine.kernel.migrations.tenancy import RESOURCE_COLUMNS, product_table, script

revision = "0014"
down_revision = "0013"

IDENTITY = """
    workspace_id text COLLATE "C" NOT NULL REFERENCES spine.workspaces,
    id text COLLATE "C" NOT NULL
"""

RULES = f"""
-- Who gets new tickets of a topic: one user, or several in turn. The rule without a topic is the default route.
CREATE TABLE spine.routing_rules (
    {IDENTITY},
    topic text COLLATE "C",
    owner_id text COLLATE "C",
    owners text[] COLLATE "C" NOT NULL DEFAULT '{{}}',
    turn bigint NOT NULL DEFAULT 0,
    {RESOURCE_COLUMNS},
    CONSTRAINT routing_rules_topic UNIQUE NULLS NOT DISTINCT (workspace_id, topic),
    CONSTRAINT routing_rules_owner FOREIGN KEY (workspace_id, owner_id) REFERENCES spine.users (workspace_id, id),
    CONSTRAINT routing_rules_owner_or_owners CHECK ((owner_id IS NULL) = (cardinality(owners) > 0))
);
COMMENT ON COLUMN spine.routing_rules.turn IS 'Tickets that were given out in turn so far.';

CREATE TABLE spine.sla_policies (
    {IDENTITY},
    priority text COLLATE "C" NOT NULL CHECK (priority IN ('low', 'normal', 'high', 'urgent')),
    topic text COLLATE "C",
    threshold_s integer NOT NULL CHECK (threshold_s > 0),
    {RESOURCE_COLUMNS},
    CONSTRAINT sla_policies_scope UNIQUE NULLS NOT DISTINCT (workspace_id, priority, topic)
);

CREATE TABLE spine.forms (
    {IDENTITY},
    slug text COLLATE "C" NOT NULL,
    title text COLLATE "C" NOT NULL,
    topics text[] COLLATE "C" NOT NULL,
    brand jsonb NOT NULL,
    allowed_origins text[] COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'disabled')),
    {RESOURCE_COLUMNS}
);
CREATE INDEX forms_active ON spine.forms (workspace_id) WHERE status = 'active';
"""

TICKETS = f"""
CREATE TABLE spine.tickets (
    {IDENTITY},
    contact_id text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    topic text COLLATE "C",
    priority text COLLATE "C" NOT NULL DEFAULT 'normal' CHECK (priority IN ('low', 'normal', 'high', 'urgent')),
    priority_rank smallint GENERATED ALWAYS AS (CASE priority WHEN 'urgent' THEN 0 WHEN 'high' THEN 1 WHEN 'normal' THEN 2 ELSE 3 END)
        STORED,
    source text COLLATE "C" NOT NULL CHECK (source IN ('voice', 'chat', 'form', 'api', 'email')),
    call_id text COLLATE "C",
    form_id text COLLATE "C",
    status text COLLATE "C" NOT NULL DEFAULT 'new' CHECK (status IN ('new', 'open', 'pending', 'resolved')),
    owner_id text COLLATE "C",
    resolution_note text COLLATE "C",
    resolved_at timestamptz,
    reopen_count integer NOT NULL DEFAULT 0 CHECK (reopen_count >= 0),
    reopened_at timestamptz[] NOT NULL DEFAULT '{{}}',
    sla_threshold_s integer CHECK (sla_threshold_s > 0),
    sla_elapsed interval NOT NULL DEFAULT '0',
    sla_running_since timestamptz,
    sla_breached_at timestamptz,
    {RESOURCE_COLUMNS},
    CONSTRAINT tickets_contact FOREIGN KEY (workspace_id, contact_id) REFERENCES spine.contacts (workspace_id, id),
    CONSTRAINT tickets_owner FOREIGN KEY (workspace_id, owner_id) REFERENCES spine.users (workspace_id, id),
    CONSTRAINT tickets_call FOREIGN KEY (workspace_id, call_id) REFERENCES spine.calls (workspace_id, id),
    CONSTRAINT tickets_form FOREIGN KEY (workspace_id, form_id) REFERENCES spine.forms (workspace_id, id),
    CONSTRAINT tickets_reopened CHECK (cardinality(reopened_at) = reopen_count),
    CONSTRAINT tickets_resolved CHECK (status <> 'resolved' OR (resolution_note IS NOT NULL AND resolved_at IS NOT NULL)),
    CONSTRAINT tickets_sla_clock CHECK ((sla_running_since IS NOT NULL) = (status IN ('new', 'open')))
);
CREATE INDEX tickets_queue ON spine.tickets (workspace_id, priority_rank, id) WHERE owner_id IS NULL AND status <> 'resolved';
CREATE INDEX tickets_of_contact ON spine.tickets (workspace_id, contact_id, id);
CREATE INDEX tickets_open_of_contact ON spine.tickets (workspace_id, contact_id, id) WHERE status <> 'resolved';
CREATE INDEX tickets_of_owner ON spine.tickets (workspace_id, owner_id, id) WHERE owner_id IS NOT NULL;
CREATE INDEX tickets_of_call ON spine.tickets (workspace_id, call_id, id) WHERE call_id IS NOT NULL;
COMMENT ON COLUMN spine.tickets.sla_elapsed IS 'How long the clock of this cycle had run before sla_running_since, which is null while it stands still.';

CREATE TABLE spine.thread_entries (
    {IDENTITY},
    ticket_id text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('comment', 'note', 'system')),
    author jsonb NOT NULL,
    body text COLLATE "C" NOT NULL,
    {RESOURCE_COLUMNS},
    FOREIGN KEY (workspace_id, ticket_id) REFERENCES spine.tickets (workspace_id, id)
);
CREATE INDEX thread_entries_of_ticket ON spine.thread_entries (workspace_id, ticket_id, id);

-- Evidence is a reference and never its content. call_id is the reference if it names a call.
CREATE TABLE spine.evidence (
    {IDENTITY},
    ticket_id text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    ref text COLLATE "C" NOT NULL CHECK (length(ref) <= 2048),
    label text COLLATE "C",
    call_id text COLLATE "C",
    {RESOURCE_COLUMNS},
    FOREIGN KEY (workspace_id, ticket_id) REFERENCES spine.tickets (workspace_id, id),
    CONSTRAINT evidence_call FOREIGN KEY (workspace_id, call_id) REFERENCES spine.calls (workspace_id, id)
);
CREATE INDEX evidence_of_ticket ON spine.evidence (workspace_id, ticket_id, id);

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON spine.thread_entries
    FOR EACH STATEMENT EXECUTE FUNCTION spine.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON spine.evidence
    FOR EACH STATEMENT EXECUTE FUNCTION spine.refuse_change();
"""


def upgrade() -> None:
    script(
        RULES
        + TICKETS
        + product_table("spine.routing_rules", app="SELECT, INSERT, UPDATE, DELETE")
        + product_table("spine.sla_policies", app="SELECT, INSERT, UPDATE, DELETE")
        + product_table("spine.forms", app="SELECT, INSERT, UPDATE")
        + product_table("spine.tickets", app="SELECT, INSERT, UPDATE")
        + product_table("spine.thread_entries", app="SELECT, INSERT", worker="SELECT, INSERT")
        + product_table("spine.evidence", app="SELECT, INSERT", worker="SELECT, INSERT")
    )


def downgrade() -> None:
    script("""
        DROP TABLE spine.evidence, spine.thread_entries, spine.tickets, spine.forms, spine.sla_policies, spine.routing_rules;
    """)
