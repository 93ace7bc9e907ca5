"""Revision 0013: catalog items, leads, interests, deals, call sessions, calls, sequences and enrollments."""

from spine.kernel.migrations.tenancy import RESOURCE_COLUMNS, product_table, script

revision = "0013"
down_revision = "0012"

KEYS = """
    workspace_id text COLLATE "C" NOT NULL REFERENCES spine.workspaces,
    id text COLLATE "C" NOT NULL,
"""

TABLES = f"""
CREATE TABLE spine.catalog_items (
    {KEYS}
    name text COLLATE "C" NOT NULL,
    sku text COLLATE "C",
    price jsonb,
    {RESOURCE_COLUMNS}
);
CREATE UNIQUE INDEX catalog_items_sku ON spine.catalog_items (workspace_id, sku);

CREATE TABLE spine.leads (
    {KEYS}
    contact_id text COLLATE "C" NOT NULL,
    stage text COLLATE "C" NOT NULL
        CHECK (stage IN ('new', 'contacted', 'qualified', 'converted', 'lost', 'dormant')),
    source text COLLATE "C" NOT NULL,
    door text COLLATE "C" NOT NULL CHECK (door IN ('agent_finalize', 'api', 'manual', 'form')),
    owner_id text COLLATE "C",
    lost_reason text COLLATE "C",
    deal_id text COLLATE "C",
    {RESOURCE_COLUMNS},
    CONSTRAINT leads_contact FOREIGN KEY (workspace_id, contact_id) REFERENCES spine.contacts (workspace_id, id),
    CONSTRAINT leads_owner FOREIGN KEY (workspace_id, owner_id) REFERENCES spine.users (workspace_id, id),
    CHECK ((stage = 'lost') = (lost_reason IS NOT NULL)),
    CHECK (deal_id IS NULL OR stage = 'converted')
);
CREATE INDEX leads_of_contact ON spine.leads (workspace_id, contact_id, id);
CREATE INDEX leads_in_stage ON spine.leads (workspace_id, stage, id);
CREATE INDEX leads_of_owner ON spine.leads (workspace_id, owner_id, id) WHERE owner_id IS NOT NULL;

CREATE TABLE spine.interests (
    {KEYS}
    lead_id text COLLATE "C" NOT NULL,
    catalog_item_id text COLLATE "C" NOT NULL,
    note text COLLATE "C",
    {RESOURCE_COLUMNS},
    CONSTRAINT interests_lead FOREIGN KEY (workspace_id, lead_id) REFERENCES spine.leads (workspace_id, id),
    CONSTRAINT interests_item FOREIGN KEY (workspace_id, catalog_item_id)
        REFERENCES spine.catalog_items (workspace_id, id)
);
CREATE INDEX interests_of_lead ON spine.interests (workspace_id, lead_id, id);

CREATE TABLE spine.deals (
    {KEYS}
    lead_id text COLLATE "C",
    contact_id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    stage text COLLATE "C" NOT NULL,
    value_minor bigint NOT NULL CHECK (value_minor >= 0),
    currency text COLLATE "C" NOT NULL CHECK (currency ~ '^[A-Z]{{3}}$'),
    owner_id text COLLATE "C",
    status text COLLATE "C" NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'won', 'lost')),
    lost_reason text COLLATE "C",
    closed_at timestamptz,
    {RESOURCE_COLUMNS},
    CONSTRAINT deals_lead FOREIGN KEY (workspace_id, lead_id) REFERENCES spine.leads (workspace_id, id),
    CONSTRAINT deals_contact FOREIGN KEY (workspace_id, contact_id) REFERENCES spine.contacts (workspace_id, id),
    CONSTRAINT deals_owner FOREIGN KEY (workspace_id, owner_id) REFERENCES spine.users (workspace_id, id),
    CHECK ((status = 'lost') = (lost_reason IS NOT NULL)),
    CHECK ((status = 'open') = (closed_at IS NULL))
);
CREATE INDEX deals_of_contact ON spine.deals (workspace_id, contact_id, id);
CREATE INDEX deals_of_lead ON spine.deals (workspace_id, lead_id, id) WHERE lead_id IS NOT NULL;
CREATE INDEX deals_of_owner ON spine.deals (workspace_id, owner_id, id) WHERE owner_id IS NOT NULL;
CREATE INDEX deals_in_status ON spine.deals (workspace_id, status, id);
ALTER TABLE spine.leads ADD CONSTRAINT leads_deal
    FOREIGN KEY (workspace_id, deal_id) REFERENCES spine.deals (workspace_id, id);

CREATE TABLE spine.call_sessions (
    {KEYS}
    contact_id text COLLATE "C" NOT NULL,
    phone text COLLATE "C",
    email text COLLATE "C",
    channel text COLLATE "C" NOT NULL,
    match text COLLATE "C" NOT NULL CHECK (match IN ('existing', 'new')),
    fields jsonb NOT NULL DEFAULT '{{}}',
    field_schema jsonb NOT NULL DEFAULT '[]',
    status text COLLATE "C" NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'finalized', 'abandoned')),
    expires_at timestamptz NOT NULL,
    call_id text COLLATE "C",
    {RESOURCE_COLUMNS},
    CONSTRAINT call_sessions_contact FOREIGN KEY (workspace_id, contact_id)
        REFERENCES spine.contacts (workspace_id, id),
    CHECK ((status = 'finalized') = (call_id IS NOT NULL))
);
CREATE INDEX call_sessions_of_contact ON spine.call_sessions (workspace_id, contact_id, id);
CREATE INDEX call_sessions_in_status ON spine.call_sessions (workspace_id, status, id);

CREATE TABLE spine.calls (
    {KEYS}
    call_session_id text COLLATE "C" NOT NULL,
    contact_id text COLLATE "C" NOT NULL,
    lead_id text COLLATE "C" NOT NULL,
    interest_ids jsonb NOT NULL DEFAULT '[]',
    appointment_id text COLLATE "C",
    channel text COLLATE "C" NOT NULL,
    fields jsonb NOT NULL DEFAULT '{{}}',
    recording_ref text COLLATE "C",
    transcript_ref text COLLATE "C",
    summary text COLLATE "C",
    started_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    {RESOURCE_COLUMNS},
    CONSTRAINT calls_session FOREIGN KEY (workspace_id, call_session_id)
        REFERENCES spine.call_sessions (workspace_id, id),
    CONSTRAINT calls_one_of_session UNIQUE (workspace_id, call_session_id),
    CONSTRAINT calls_contact FOREIGN KEY (workspace_id, contact_id) REFERENCES spine.contacts (workspace_id, id),
    CONSTRAINT calls_lead FOREIGN KEY (workspace_id, lead_id) REFERENCES spine.leads (workspace_id, id),
    CONSTRAINT calls_appointment FOREIGN KEY (workspace_id, appointment_id)
        REFERENCES spine.appointments (workspace_id, id)
);
CREATE INDEX calls_of_contact ON spine.calls (workspace_id, contact_id, id);
CREATE INDEX calls_of_lead ON spine.calls (workspace_id, lead_id, id);
ALTER TABLE spine.call_sessions ADD CONSTRAINT call_sessions_call
    FOREIGN KEY (workspace_id, call_id) REFERENCES spine.calls (workspace_id, id);

CREATE TABLE spine.sequences (
    {KEYS}
    name text COLLATE "C" NOT NULL,
    steps jsonb NOT NULL,
    status text COLLATE "C" NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'paused')),
    {RESOURCE_COLUMNS}
);

CREATE TABLE spine.enrollments (
    {KEYS}
    sequence_id text COLLATE "C" NOT NULL,
    contact_id text COLLATE "C" NOT NULL,
    step integer NOT NULL DEFAULT 0 CHECK (step >= 0),
    status text COLLATE "C" NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'completed', 'stopped')),
    stop_reason text COLLATE "C",
    message_id text COLLATE "C",
    held boolean NOT NULL DEFAULT false,
    started_at timestamptz NOT NULL DEFAULT now(),
    ended_at timestamptz,
    {RESOURCE_COLUMNS},
    CONSTRAINT enrollments_sequence FOREIGN KEY (workspace_id, sequence_id)
        REFERENCES spine.sequences (workspace_id, id),
    CONSTRAINT enrollments_contact FOREIGN KEY (workspace_id, contact_id) REFERENCES spine.contacts (workspace_id, id),
    CHECK ((status = 'stopped') = (stop_reason IS NOT NULL)),
    CHECK ((status = 'active') = (ended_at IS NULL))
);
CREATE UNIQUE INDEX enrollments_one_active ON spine.enrollments (workspace_id, sequence_id, contact_id)
    WHERE status = 'active';
CREATE INDEX enrollments_of_sequence ON spine.enrollments (workspace_id, sequence_id, id);
CREATE INDEX enrollments_of_contact ON spine.enrollments (workspace_id, contact_id, id);
CREATE INDEX enrollments_held ON spine.enrollments (workspace_id, sequence_id, id) WHERE held;
COMMENT ON COLUMN spine.enrollments.step IS 'The step that is next, or whose message is under way; from 0.';
COMMENT ON COLUMN spine.enrollments.held IS 'Its step was due while the sequence was paused: it runs when the sequence is resumed.';

-- What became of each step: one row per step, so that an outcome is told once.
CREATE TABLE spine.enrollment_steps (
    workspace_id text COLLATE "C" NOT NULL,
    enrollment_id text COLLATE "C" NOT NULL,
    step integer NOT NULL,
    message_id text COLLATE "C",
    channel text COLLATE "C",
    outcome text COLLATE "C" NOT NULL CHECK (outcome IN ('sent', 'delivered', 'read', 'failed', 'cancelled')),
    reason text COLLATE "C",
    ended_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, enrollment_id, step),
    FOREIGN KEY (workspace_id, enrollment_id) REFERENCES spine.enrollments (workspace_id, id)
);
"""

FOLLOWING = """
-- A reply or a changed preference stops the contact's enrollments. Workers write replies with SQL of their own, outside of
-- any unit of work, so the entry itself schedules the job. Its subject is the entry: the insert waits for no other job.
CREATE INDEX timeline_entries_wishes ON spine.timeline_entries (workspace_id, subject_id, at)
    WHERE kind IN ('message.replied', 'preference.changed');
CREATE FUNCTION spine.enrollments_follow_contacts() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    INSERT INTO spine.jobs (workspace_id, kind, subject_id, args, due_at)
    VALUES (NEW.workspace_id, 'crm.stop_enrollments', NEW.id, jsonb_build_object('contact_id', NEW.subject_id), now());
    RETURN NULL;
END $$;
CREATE TRIGGER enrollments_follow AFTER INSERT ON spine.timeline_entries FOR EACH ROW
    WHEN (NEW.kind IN ('message.replied', 'preference.changed') AND NEW.subject_id LIKE 'ctc\\_%')
    EXECUTE FUNCTION spine.enrollments_follow_contacts();
"""

PRODUCT_TABLES = (
    "catalog_items",
    "leads",
    "interests",
    "deals",
    "call_sessions",
    "calls",
    "sequences",
    "enrollments",
    "enrollment_steps",
)


def upgrade() -> None:
    policies = "".join(product_table(f"spine.{table}", app="SELECT, INSERT, UPDATE") for table in PRODUCT_TABLES)
    script(TABLES + policies + FOLLOWING)


def downgrade() -> None:
    script(f"""
        DROP TRIGGER enrollments_follow ON spine.timeline_entries;
        DROP FUNCTION spine.enrollments_follow_contacts;
        DROP INDEX spine.timeline_entries_wishes;
        DROP TABLE {", ".join(f"spine.{table}" for table in PRODUCT_TABLES)};
    """)
