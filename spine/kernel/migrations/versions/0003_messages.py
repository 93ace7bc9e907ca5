"""Revision 0003: contacts, timeline, templates, channel policies, provider accounts, preferences, messages, attempts, receipts."""

from spine.kernel.migrations.tenancy import RESOURCE_COLUMNS, definer, script, tenant_table

revision = "0003"
down_revision = "0002"


TABLES = f"""
ALTER TABLE spine.workspaces ADD UNIQUE (workspace_id, env);

CREATE TABLE spine.contacts (
    workspace_id text COLLATE "C" NOT NULL REFERENCES spine.workspaces,
    id text COLLATE "C" NOT NULL,
    name text NOT NULL,
    phone_e164 text COLLATE "C",
    email text COLLATE "C",
    owner_id text COLLATE "C",
    fields jsonb NOT NULL DEFAULT '{{}}',
    {RESOURCE_COLUMNS},
    FOREIGN KEY (workspace_id, owner_id) REFERENCES spine.users (workspace_id, id)
);
CREATE UNIQUE INDEX contacts_phone ON spine.contacts (workspace_id, phone_e164);
CREATE UNIQUE INDEX contacts_email ON spine.contacts (workspace_id, email);

-- The audit trail of contacts, messages and policies: what happened, and who did it. Append-only.
CREATE TABLE spine.timeline_entries (
    workspace_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    subject_id text COLLATE "C" NOT NULL,
    kind text NOT NULL,
    actor jsonb NOT NULL,
    changes jsonb NOT NULL DEFAULT '[]',
    detail jsonb NOT NULL DEFAULT '{{}}',
    request_id text COLLATE "C" NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seq bigint GENERATED ALWAYS AS IDENTITY (CACHE 1),
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (workspace_id, id)
);
CREATE INDEX timeline_entries_subject ON spine.timeline_entries (workspace_id, subject_id, seq);
CREATE FUNCTION spine.refuse_change() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON spine.timeline_entries
    FOR EACH STATEMENT EXECUTE FUNCTION spine.refuse_change();

CREATE TABLE spine.templates (
    workspace_id text COLLATE "C" NOT NULL REFERENCES spine.workspaces,
    id text COLLATE "C" NOT NULL,
    slug text COLLATE "C" NOT NULL,
    locale text COLLATE "C" NOT NULL,
    bodies jsonb NOT NULL,
    required_vars text[] NOT NULL DEFAULT '{{}}',
    category text COLLATE "C" NOT NULL,
    dlt jsonb,
    {RESOURCE_COLUMNS},
    UNIQUE (workspace_id, slug, locale, version)
);
COMMENT ON COLUMN spine.templates.version IS 'The version of this slug and locale; a row never changes.';

CREATE TABLE spine.channel_policies (
    workspace_id text COLLATE "C" NOT NULL REFERENCES spine.workspaces,
    id text COLLATE "C" NOT NULL,
    slug text COLLATE "C" NOT NULL,
    steps jsonb NOT NULL,
    deadline_s integer NOT NULL CHECK (deadline_s > 0),
    quiet_hours jsonb,
    applies_to jsonb NOT NULL DEFAULT '{{}}',
    {RESOURCE_COLUMNS},
    UNIQUE (workspace_id, slug)
);
CREATE UNIQUE INDEX channel_policies_applies ON spine.channel_policies (workspace_id, coalesce(applies_to ->> 'template', ''));

-- A test workspace has only sandbox accounts, a live workspace only real ones. Constraints enforce this.
CREATE TABLE spine.provider_accounts (
    workspace_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    env text NOT NULL,
    name text NOT NULL,
    channel text NOT NULL CHECK (channel IN ('whatsapp', 'sms', 'email')),
    kind text COLLATE "C" NOT NULL,
    priority integer NOT NULL,
    weight integer NOT NULL CHECK (weight > 0),
    rate_per_s double precision CHECK (rate_per_s > 0),
    credentials bytea,
    config jsonb NOT NULL DEFAULT '{{}}',
    sandbox jsonb,
    {RESOURCE_COLUMNS},
    FOREIGN KEY (workspace_id, env) REFERENCES spine.workspaces (workspace_id, env),
    CHECK ((kind = 'sandbox') = (env = 'test')),
    CHECK ((kind = 'sandbox') = (sandbox IS NOT NULL))
);
CREATE INDEX provider_accounts_id ON spine.provider_accounts (id);
COMMENT ON COLUMN spine.provider_accounts.credentials IS 'Encrypted (sealed); the API never returns them. Null for a sandbox account with a derived secret.';

-- Opt-outs: each change is a row; the newest row of a contact, channel and category is valid.
CREATE TABLE spine.preferences (
    workspace_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    contact_id text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    category text COLLATE "C" NOT NULL,
    opted_out boolean NOT NULL,
    source text COLLATE "C" NOT NULL,
    {RESOURCE_COLUMNS},
    FOREIGN KEY (workspace_id, contact_id) REFERENCES spine.contacts (workspace_id, id)
);
CREATE INDEX preferences_newest ON spine.preferences (workspace_id, contact_id, channel, category, id);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON spine.preferences
    FOR EACH STATEMENT EXECUTE FUNCTION spine.refuse_change();

CREATE TABLE spine.messages (
    workspace_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    contact_id text COLLATE "C",
    addresses jsonb NOT NULL,
    template_id text COLLATE "C" NOT NULL,
    template text COLLATE "C" NOT NULL,
    template_version integer NOT NULL,
    locale text COLLATE "C" NOT NULL,
    category text COLLATE "C" NOT NULL,
    dlt_category text COLLATE "C",
    vars jsonb NOT NULL,
    policy_id text COLLATE "C",
    policy_slug text COLLATE "C",
    policy_version integer,
    policy jsonb NOT NULL,
    warnings jsonb NOT NULL DEFAULT '[]',
    status text NOT NULL CHECK (status IN ('queued', 'scheduled', 'sending', 'sent', 'delivered', 'read', 'failed', 'cancelled')),
    channel text COLLATE "C",
    provider text COLLATE "C",
    provider_account_id text COLLATE "C",
    receipt_supported boolean,
    sent_at timestamptz,
    delivered_at timestamptz,
    read_at timestamptz,
    duplicate_possible boolean NOT NULL DEFAULT false,
    late_success boolean NOT NULL DEFAULT false,
    stopped boolean NOT NULL DEFAULT false,
    reasons jsonb NOT NULL DEFAULT '[]',
    send_at timestamptz,
    deadline_at timestamptz NOT NULL,
    held_until timestamptz,
    ended_at timestamptz,
    sequence integer NOT NULL DEFAULT 1,
    request_id text COLLATE "C" NOT NULL,
    {RESOURCE_COLUMNS},
    FOREIGN KEY (workspace_id, contact_id) REFERENCES spine.contacts (workspace_id, id)
);
CREATE INDEX messages_contact ON spine.messages (workspace_id, contact_id, id);
COMMENT ON COLUMN spine.messages.policy IS 'The delivery strategy of this message, as it was when the message was accepted.';
COMMENT ON COLUMN spine.messages.held_until IS 'The end of the quiet hours that this message waits for; after it the message does not wait for them again.';
COMMENT ON COLUMN spine.messages.stopped IS 'The person replied STOP: no further step is taken.';

CREATE TABLE spine.attempts (
    workspace_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    message_id text COLLATE "C" NOT NULL,
    step smallint NOT NULL,
    number smallint NOT NULL,
    channel text COLLATE "C" NOT NULL,
    provider text COLLATE "C" NOT NULL,
    provider_account_id text COLLATE "C" NOT NULL,
    receipts boolean NOT NULL,
    state text NOT NULL CHECK (state IN ('sending', 'accepted', 'sent', 'delivered', 'read', 'failed')),
    outcome text CHECK (outcome IN ('accepted', 'rejected', 'unknown')),
    class text COLLATE "C",
    provider_code text,
    provider_http integer,
    provider_message_id text COLLATE "C",
    raw jsonb,
    late_success boolean NOT NULL DEFAULT false,
    started_at timestamptz NOT NULL,
    ended_at timestamptz,
    wait_until timestamptz,
    retry_at timestamptz,
    left_at timestamptz,
    accepted_at timestamptz,
    delivered_at timestamptz,
    read_at timestamptz,
    failed_at timestamptz,
    PRIMARY KEY (workspace_id, id),
    UNIQUE (workspace_id, message_id, step, number),
    FOREIGN KEY (workspace_id, message_id) REFERENCES spine.messages (workspace_id, id),
    FOREIGN KEY (workspace_id, provider_account_id) REFERENCES spine.provider_accounts (workspace_id, id)
);
CREATE INDEX attempts_provider_message ON spine.attempts (workspace_id, provider_account_id, provider_message_id)
    WHERE provider_message_id IS NOT NULL;
COMMENT ON COLUMN spine.attempts.left_at IS 'When the message left this attempt, for another attempt or for its end.';

-- Receipts from providers, each stored once. A receipt without attempt_id is parked until its attempt is known.
CREATE TABLE spine.receipts (
    workspace_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    provider_account_id text COLLATE "C" NOT NULL,
    attempt_id text COLLATE "C",
    provider_message_id text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    reported_at text COLLATE "C" NOT NULL,
    attempt_named text COLLATE "C",
    received_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    raw jsonb NOT NULL,
    PRIMARY KEY (workspace_id, id),
    UNIQUE (workspace_id, provider_account_id, provider_message_id, status, reported_at)
);
CREATE INDEX receipts_parked ON spine.receipts (workspace_id, provider_account_id, provider_message_id) WHERE attempt_id IS NULL;

-- The live queue: one row per message that has not ended. due_at is its start, or its next fallback, retry or deadline.
CREATE TABLE spine.sends_open (
    workspace_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    due_at timestamptz NOT NULL,
    leased_by text COLLATE "C",
    accepted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (workspace_id, id)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX sends_open_due ON spine.sends_open (due_at);

-- State of the sandbox provider: the calls that it accepted, so that a repeated call counts once, and its pending receipts.
CREATE TABLE spine.sandbox_calls (
    workspace_id text COLLATE "C" NOT NULL,
    attempt_id text COLLATE "C" NOT NULL,
    provider_message_id text COLLATE "C" NOT NULL,
    taken_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (workspace_id, attempt_id)
);
CREATE TABLE spine.sandbox_receipts (
    workspace_id text COLLATE "C" NOT NULL,
    seq bigint GENERATED ALWAYS AS IDENTITY,
    provider_account_id text COLLATE "C" NOT NULL,
    attempt_id text COLLATE "C" NOT NULL,
    body bytea NOT NULL,
    late boolean NOT NULL,
    due_at timestamptz NOT NULL,
    leased_by text COLLATE "C",
    PRIMARY KEY (workspace_id, seq)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX sandbox_receipts_due ON spine.sandbox_receipts (due_at, seq);
COMMENT ON COLUMN spine.sandbox_receipts.late IS 'Sent only after the message has left its attempt (scripted outcome 9).';
"""

FUNCTIONS = """
-- Returns all rows that validating messages needs, in one round trip. Contacts are looked up by id, phone or email.
CREATE FUNCTION spine.messages_lookup(
    p_workspace_id text, p_contact_ids text[], p_phones text[], p_emails text[], p_templates text[]) RETURNS jsonb
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM set_config('app.ws', p_workspace_id, true);
    RETURN jsonb_build_object(
        'contacts', (SELECT coalesce(jsonb_agg(jsonb_build_object('id', c.id, 'phone', c.phone_e164, 'email', c.email)), '[]')
            FROM (SELECT * FROM spine.contacts WHERE workspace_id = p_workspace_id AND id = ANY (p_contact_ids)
                  UNION SELECT * FROM spine.contacts WHERE workspace_id = p_workspace_id AND phone_e164 = ANY (p_phones)
                  UNION SELECT * FROM spine.contacts WHERE workspace_id = p_workspace_id AND email = ANY (p_emails)) c),
        'templates', (SELECT coalesce(jsonb_agg(to_jsonb(t) - 'xid' - 'metadata' ORDER BY t.id), '[]')
            FROM (SELECT DISTINCT ON (slug, locale) * FROM spine.templates
                   WHERE workspace_id = p_workspace_id AND slug = ANY (p_templates) ORDER BY slug, locale, version DESC) t),
        'templates_by_id', (SELECT coalesce(jsonb_agg(to_jsonb(t) - 'xid' - 'metadata'), '[]')
            FROM spine.templates t WHERE t.workspace_id = p_workspace_id AND t.id = ANY (p_templates)),
        'policies', (SELECT coalesce(jsonb_agg(to_jsonb(p) - 'xid' - 'metadata'), '[]')
            FROM spine.channel_policies p WHERE p.workspace_id = p_workspace_id),
        'accounts', (SELECT coalesce(jsonb_agg(jsonb_build_object('id', a.id, 'name', a.name, 'channel', a.channel, 'kind', a.kind)
                                               ORDER BY a.priority, a.id), '[]')
            FROM spine.provider_accounts a WHERE a.workspace_id = p_workspace_id));
END $$;

-- Inserts accepted messages with their timeline, queue rows and events in the caller's transaction.
CREATE FUNCTION spine.messages_put(
    p_workspace_id text, p_messages jsonb, p_timeline jsonb, p_event_ids text[], p_event_types text[], p_event_bodies bytea[])
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM set_config('app.ws', p_workspace_id, true);
    INSERT INTO spine.messages (workspace_id, id, contact_id, addresses, template_id, template, template_version, locale, category,
        dlt_category, vars, policy_id, policy_slug, policy_version, policy, warnings, status, send_at, deadline_at, request_id,
        created_at, updated_at, metadata)
    SELECT p_workspace_id, m.id, m.contact_id, m.addresses, m.template_id, m.template, m.template_version, m.locale, m.category,
        m.dlt_category, m.vars, m.policy_id, m.policy_slug, m.policy_version, m.policy, m.warnings, m.status, m.send_at, m.deadline_at,
        m.request_id, m.created_at, m.created_at, m.metadata
      FROM jsonb_populate_recordset(NULL::spine.messages, p_messages) m;
    INSERT INTO spine.timeline_entries (workspace_id, id, subject_id, kind, actor, detail, request_id)
    SELECT p_workspace_id, t.id, t.subject_id, t.kind, t.actor, t.detail, t.request_id
      FROM jsonb_populate_recordset(NULL::spine.timeline_entries, p_timeline) t;
    INSERT INTO spine.sends_open (workspace_id, id, due_at)
    SELECT p_workspace_id, m.id, coalesce(m.send_at, now()) FROM jsonb_populate_recordset(NULL::spine.messages, p_messages) m;
    PERFORM spine.events_put(p_event_ids, p_event_types, p_event_bodies);
END $$;

-- All of POST messages in one round trip: claims the key, inserts messages, timeline, queue rows and events, stores the response.
CREATE FUNCTION spine.messages_accept(
    p_workspace_id text, p_key text, p_fingerprint bytea, p_keep interval, p_status smallint, p_location text, p_body bytea,
    p_messages jsonb, p_timeline jsonb, p_event_ids text[], p_event_types text[], p_event_bodies bytea[])
RETURNS TABLE (claimed boolean, fingerprint bytea, status smallint, location text, body bytea, sealed boolean, event_ids text[])
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM set_config('app.ws', p_workspace_id, true);
    INSERT INTO spine.idempotency_keys AS k (workspace_id, key, fingerprint, status, location, body, expires_at)
    VALUES (p_workspace_id, p_key, p_fingerprint, p_status, p_location, p_body, now() + p_keep)
    ON CONFLICT (workspace_id, key) DO UPDATE
        SET fingerprint = EXCLUDED.fingerprint, status = EXCLUDED.status, location = EXCLUDED.location, body = EXCLUDED.body,
            sealed = false, event_ids = NULL, created_at = now(), expires_at = EXCLUDED.expires_at
        WHERE k.expires_at <= now();
    IF NOT FOUND THEN
        RETURN QUERY SELECT false, k.fingerprint, k.status, k.location, k.body, k.sealed, k.event_ids
            FROM spine.idempotency_keys k WHERE k.workspace_id = p_workspace_id AND k.key = p_key;
        RETURN;
    END IF;
    PERFORM spine.messages_put(p_workspace_id, p_messages, p_timeline, p_event_ids, p_event_types, p_event_bodies);
    RETURN QUERY SELECT true, p_fingerprint, p_status, p_location, p_body, false, NULL::text[];
END $$;
GRANT EXECUTE ON FUNCTION spine.messages_lookup(text, text[], text[], text[], text[]) TO spine_app, spine_worker;
GRANT EXECUTE ON FUNCTION spine.messages_put(text, jsonb, jsonb, text[], text[], bytea[]) TO spine_app, spine_worker;
GRANT EXECUTE ON FUNCTION spine.messages_accept(text, text, bytea, interval, smallint, text, bytea, jsonb, jsonb, text[], text[], bytea[])
    TO spine_app;

-- Writes all changes of a batch of decisions, results and receipts in one round trip. A worker changes queue rows that it
-- has leased. The API (p_worker is null) changes rows without a lease, and may delete any row.
CREATE FUNCTION spine.messages_write(
    p_worker text, p_messages jsonb, p_attempts jsonb, p_timeline jsonb, p_preferences jsonb, p_queue jsonb,
    p_event_workspaces text[], p_event_ids text[], p_event_types text[], p_event_bodies bytea[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    UPDATE spine.messages m
       SET status = u.status, channel = u.channel, provider = u.provider, provider_account_id = u.provider_account_id,
           receipt_supported = u.receipt_supported, sent_at = u.sent_at, delivered_at = u.delivered_at, read_at = u.read_at,
           duplicate_possible = u.duplicate_possible, late_success = u.late_success, stopped = u.stopped, reasons = u.reasons,
           held_until = u.held_until, ended_at = u.ended_at, sequence = u.sequence, version = u.version, updated_at = u.updated_at
      FROM jsonb_populate_recordset(NULL::spine.messages, p_messages) u
     WHERE m.workspace_id = u.workspace_id AND m.id = u.id;
    INSERT INTO spine.attempts SELECT * FROM jsonb_populate_recordset(NULL::spine.attempts, p_attempts)
    ON CONFLICT (workspace_id, id) DO UPDATE
       SET state = EXCLUDED.state, outcome = EXCLUDED.outcome, class = EXCLUDED.class, provider_code = EXCLUDED.provider_code,
           provider_http = EXCLUDED.provider_http, provider_message_id = EXCLUDED.provider_message_id, raw = EXCLUDED.raw,
           late_success = EXCLUDED.late_success, ended_at = EXCLUDED.ended_at, wait_until = EXCLUDED.wait_until,
           retry_at = EXCLUDED.retry_at, left_at = EXCLUDED.left_at, accepted_at = EXCLUDED.accepted_at,
           delivered_at = EXCLUDED.delivered_at, read_at = EXCLUDED.read_at, failed_at = EXCLUDED.failed_at;
    INSERT INTO spine.timeline_entries (workspace_id, id, subject_id, kind, actor, changes, detail, request_id)
    SELECT t.workspace_id, t.id, t.subject_id, t.kind, t.actor, t.changes, t.detail, t.request_id
      FROM jsonb_populate_recordset(NULL::spine.timeline_entries, p_timeline) t;
    INSERT INTO spine.preferences (workspace_id, id, contact_id, channel, category, opted_out, source)
    SELECT p.workspace_id, p.id, p.contact_id, p.channel, p.category, p.opted_out, p.source
      FROM jsonb_populate_recordset(NULL::spine.preferences, p_preferences) p;
    UPDATE spine.sends_open o SET due_at = u.due_at, leased_by = NULL
      FROM jsonb_populate_recordset(NULL::spine.sends_open, p_queue) u
     WHERE u.due_at IS NOT NULL AND o.workspace_id = u.workspace_id AND o.id = u.id AND o.leased_by IS NOT DISTINCT FROM p_worker;
    DELETE FROM spine.sends_open o
     USING jsonb_populate_recordset(NULL::spine.sends_open, p_queue) u
     WHERE u.due_at IS NULL AND o.workspace_id = u.workspace_id AND o.id = u.id;
    IF cardinality(p_event_ids) > 0 THEN
        INSERT INTO spine.events (workspace_id, id, type, body)
        SELECT u.workspace_id, u.id, u.type, u.body
          FROM unnest(p_event_workspaces, p_event_ids, p_event_types, p_event_bodies) AS u (workspace_id, id, type, body);
        INSERT INTO spine.outbox (workspace_id, event_id, type)
        SELECT u.workspace_id, u.id, u.type FROM unnest(p_event_workspaces, p_event_ids, p_event_types) AS u (workspace_id, id, type);
    END IF;
END $$;
GRANT EXECUTE ON FUNCTION spine.messages_write(text, jsonb, jsonb, jsonb, jsonb, jsonb, text[], text[], text[], bytea[])
    TO spine_app, spine_worker;

-- Returns the account that a provider's callback names, before a workspace is known.
CREATE FUNCTION spine.provider_account_find(p_id text)
RETURNS TABLE (workspace_id text, env text, id text, channel text, kind text, credentials bytea, config jsonb)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
    SELECT a.workspace_id, a.env, a.id, a.channel, a.kind, a.credentials, a.config FROM spine.provider_accounts a WHERE a.id = p_id
$$;
"""


def upgrade() -> None:
    script(TABLES)
    everything = "SELECT, INSERT, UPDATE, DELETE"
    script(
        tenant_table("spine.contacts", app="SELECT, INSERT, UPDATE", worker="SELECT, UPDATE")
        + tenant_table("spine.timeline_entries", app="SELECT, INSERT", worker="SELECT, INSERT")
        + tenant_table("spine.templates", app="SELECT, INSERT", worker="SELECT, INSERT")
        + tenant_table("spine.channel_policies", app="SELECT, INSERT, UPDATE", worker="SELECT")
        + tenant_table("spine.provider_accounts", app="SELECT, INSERT, UPDATE", worker="SELECT")
        + tenant_table("spine.preferences", app="SELECT, INSERT", worker="SELECT, INSERT")
        + tenant_table("spine.messages", app="SELECT, INSERT, UPDATE", worker="SELECT, INSERT, UPDATE")
        + tenant_table("spine.attempts", app="SELECT, INSERT, UPDATE", worker="SELECT, INSERT, UPDATE")
        + tenant_table("spine.receipts", app="SELECT, INSERT, UPDATE", worker="SELECT, INSERT, UPDATE, DELETE")
        + tenant_table("spine.sends_open", app=everything, worker=everything)
        + tenant_table("spine.sandbox_calls", app="SELECT", worker="SELECT, INSERT, DELETE")
        + tenant_table("spine.sandbox_receipts", app="SELECT, UPDATE", worker=everything)
    )
    script(FUNCTIONS + definer("spine.provider_account_find(text)"))


def downgrade() -> None:
    script("""
        DROP FUNCTION spine.provider_account_find, spine.messages_write, spine.messages_accept, spine.messages_put, spine.messages_lookup;
        DROP TABLE spine.sandbox_receipts, spine.sandbox_calls, spine.sends_open, spine.receipts, spine.attempts, spine.messages,
            spine.preferences, spine.provider_accounts, spine.channel_policies, spine.templates, spine.timeline_entries, spine.contacts;
        DROP FUNCTION spine.refuse_change;
        ALTER TABLE spine.workspaces DROP CONSTRAINT workspaces_workspace_id_env_key;
    """)
