"""Revision 0002: events, the outbox, endpoints and their subscriptions, deliveries, replays."""

from spine.kernel.migrations.tenancy import RESOURCE_COLUMNS, compressed, definer, script, tenant_table

revision = "0002"
down_revision = "0001"


TABLES = f"""
CREATE TABLE spine.event_types (
    workspace_id text COLLATE "C" NOT NULL REFERENCES spine.workspaces,
    id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    description text NOT NULL DEFAULT '',
    schema jsonb,
    status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'archived')),
    {RESOURCE_COLUMNS},
    UNIQUE (workspace_id, name)
);

-- Payloads, partitioned by day on the id: its first ten characters after the prefix are its time.
CREATE TABLE spine.events (
    workspace_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    type text COLLATE "C" NOT NULL,
    body bytea,
    accepted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    erased_at timestamptz,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (workspace_id, id)
) PARTITION BY RANGE (id);
-- Only for the feed. Its collation (which compares like the column's own) and its columns prevent that the planner uses it
-- to look up one event: in a partition that seems to be empty all indexes cost the same, and the plan is cached. A
-- transaction has few events, so sorting them is cheap.
CREATE INDEX events_feed ON spine.events (workspace_id COLLATE "POSIX", xid);
COMMENT ON COLUMN spine.events.body IS 'The exact bytes that are signed and sent; null after erasure.';

-- Transactional outbox: one small row per event that is not matched to endpoints yet. The relay deletes it.
CREATE TABLE spine.outbox (
    workspace_id text COLLATE "C" NOT NULL,
    seq bigint GENERATED ALWAYS AS IDENTITY (CACHE 100),
    event_id text COLLATE "C" NOT NULL,
    type text COLLATE "C" NOT NULL,
    accepted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    not_endpoint_id text COLLATE "C",
    PRIMARY KEY (workspace_id, seq)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX outbox_order ON spine.outbox (seq);
COMMENT ON COLUMN spine.outbox.not_endpoint_id IS 'An endpoint that must not get this event, because the event reports this endpoint''s own dead letter.';

CREATE TABLE spine.webhook_endpoints (
    workspace_id text COLLATE "C" NOT NULL REFERENCES spine.workspaces,
    id text COLLATE "C" NOT NULL,
    url text NOT NULL,
    events text[] NOT NULL,
    filter text,
    description text NOT NULL DEFAULT '',
    headers bytea,
    rate_per_s double precision CHECK (rate_per_s > 0),
    max_in_flight integer NOT NULL CHECK (max_in_flight > 0),
    signature text NOT NULL DEFAULT 'v1' CHECK (signature IN ('v1', 'v1a')),
    status text NOT NULL DEFAULT 'enabled' CHECK (status IN ('enabled', 'disabled')),
    disabled_reason text,
    disabled_at timestamptz,
    deleted_at timestamptz,
    {RESOURCE_COLUMNS}
);
COMMENT ON COLUMN spine.webhook_endpoints.headers IS 'Custom headers as an encrypted (sealed) JSON object, because they often contain credentials.';
CREATE TABLE spine.endpoint_secrets (
    workspace_id text COLLATE "C" NOT NULL,
    endpoint_id text COLLATE "C" NOT NULL,
    seq bigint GENERATED ALWAYS AS IDENTITY,
    secret bytea NOT NULL,
    public_key text,
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, endpoint_id, seq),
    FOREIGN KEY (workspace_id, endpoint_id) REFERENCES spine.webhook_endpoints (workspace_id, id)
);
COMMENT ON COLUMN spine.endpoint_secrets.expires_at IS 'Null for the current secret; for a rotated secret, the end of the overlap.';
-- The patterns and filters of an endpoint with their period of validity. An event goes to the endpoints whose pattern and filter were
-- valid when it was accepted.
CREATE TABLE spine.subscriptions (
    workspace_id text COLLATE "C" NOT NULL,
    pattern text COLLATE "C" NOT NULL,
    endpoint_id text COLLATE "C" NOT NULL,
    filter text,
    valid_from timestamptz NOT NULL DEFAULT clock_timestamp(),
    valid_to timestamptz NOT NULL DEFAULT 'infinity',
    PRIMARY KEY (workspace_id, pattern, endpoint_id, valid_from),
    FOREIGN KEY (workspace_id, endpoint_id) REFERENCES spine.webhook_endpoints (workspace_id, id)
);
COMMENT ON COLUMN spine.subscriptions.filter IS 'JSON that an event''s data must contain, equal in all valid rows of an endpoint; null for no filter.';
-- Without workspace_id: with it, the relay's lookup of patterns would use this index instead of the primary key.
CREATE INDEX subscriptions_endpoint ON spine.subscriptions (endpoint_id);
-- The health of an endpoint, in its own row, so that deliveries do not update the endpoint's row.
CREATE TABLE spine.endpoint_health (
    workspace_id text COLLATE "C" NOT NULL,
    endpoint_id text COLLATE "C" NOT NULL,
    failing_since timestamptz,
    PRIMARY KEY (workspace_id, endpoint_id),
    FOREIGN KEY (workspace_id, endpoint_id) REFERENCES spine.webhook_endpoints (workspace_id, id)
);

-- The live queue: deliveries that are neither delivered nor dead. It is small, so claims stay cheap for any size of the history.
CREATE TABLE spine.deliveries_open (
    workspace_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    event_id text COLLATE "C" NOT NULL,
    type text COLLATE "C" NOT NULL,
    endpoint_id text COLLATE "C" NOT NULL,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'retrying', 'held')),
    failures smallint NOT NULL DEFAULT 0,
    series smallint NOT NULL DEFAULT 1,
    attempts jsonb NOT NULL DEFAULT '[]',
    replay_id text COLLATE "C",
    due_at timestamptz,
    leased_by text COLLATE "C",
    accepted_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    PRIMARY KEY (workspace_id, id),
    CHECK ((state = 'held') = (due_at IS NULL))
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX deliveries_open_due ON spine.deliveries_open (due_at) WHERE due_at < 'infinity';
CREATE INDEX deliveries_open_waiting ON spine.deliveries_open (endpoint_id, id) WHERE due_at = 'infinity';
CREATE INDEX deliveries_open_held ON spine.deliveries_open (endpoint_id, id) WHERE state = 'held';
COMMENT ON COLUMN spine.deliveries_open.due_at IS
    'When the row may be claimed next: its due time; the end of a lease (leased_by is set); infinity while parked behind a full endpoint queue; null while held.';
COMMENT ON COLUMN spine.deliveries_open.series IS 'Increases by one with each replay; attempt numbers restart in each series.';

-- The history: delivered and dead deliveries. Append-only, except that a replay moves a row back to the queue.
CREATE TABLE spine.deliveries_closed (
    workspace_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    event_id text COLLATE "C" NOT NULL,
    type text COLLATE "C" NOT NULL,
    endpoint_id text COLLATE "C" NOT NULL,
    state text NOT NULL CHECK (state IN ('delivered', 'dead')),
    reason text,
    series smallint NOT NULL,
    attempts jsonb NOT NULL,
    replay_id text COLLATE "C",
    accepted_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    closed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    xid xid8 NOT NULL,
    PRIMARY KEY (workspace_id, id)
) PARTITION BY RANGE (id);
CREATE INDEX deliveries_closed_event ON spine.deliveries_closed (workspace_id, event_id);
CREATE INDEX deliveries_closed_endpoint ON spine.deliveries_closed (workspace_id, endpoint_id, id);
CREATE INDEX deliveries_closed_dead ON spine.deliveries_closed (workspace_id, id) WHERE state = 'dead';
COMMENT ON COLUMN spine.deliveries_closed.xid IS 'The transaction that created the delivery, not the one that closed it: snapshot cursors compare it.';

CREATE VIEW spine.deliveries WITH (security_invoker = true) AS
    SELECT workspace_id, id, event_id, type, endpoint_id, state, NULL::text AS reason, series, attempts, replay_id,
           accepted_at, created_at, NULL::timestamptz AS closed_at,
           CASE WHEN leased_by IS NULL AND due_at < 'infinity' THEN due_at END AS next_attempt_at, xid
      FROM spine.deliveries_open
    UNION ALL
    SELECT workspace_id, id, event_id, type, endpoint_id, state, reason, series, attempts, replay_id,
           accepted_at, created_at, closed_at, NULL::timestamptz, xid
      FROM spine.deliveries_closed;

CREATE TABLE spine.replays (
    workspace_id text COLLATE "C" NOT NULL REFERENCES spine.workspaces,
    id text COLLATE "C" NOT NULL,
    kind text NOT NULL CHECK (kind IN ('closed', 'missing')),
    filter jsonb NOT NULL,
    rate_per_s double precision CHECK (rate_per_s > 0),
    status text NOT NULL DEFAULT 'running' CHECK (status IN ('running', 'paused', 'done', 'cancelled')),
    total bigint NOT NULL,
    started bigint NOT NULL DEFAULT 0,
    done bigint NOT NULL DEFAULT 0,
    failed bigint NOT NULL DEFAULT 0,
    position text COLLATE "C" NOT NULL DEFAULT '',
    upto text COLLATE "C" NOT NULL,
    due_at timestamptz,
    leased_by text COLLATE "C",
    {RESOURCE_COLUMNS}
);
CREATE INDEX replays_due ON spine.replays (due_at) WHERE due_at IS NOT NULL;
COMMENT ON COLUMN spine.replays.position IS 'The last processed delivery (or event, for kind missing); the replay continues after it, up to upto.';
"""

FUNCTIONS = """
-- Returns the ULID time prefix of a time: ten Crockford characters, 48 bits of milliseconds.
CREATE FUNCTION spine.ulid_time(p_at timestamptz) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog AS $$
DECLARE
    ms bigint := floor(extract(epoch FROM p_at) * 1000)::bigint;
    symbols constant text := '0123456789ABCDEFGHJKMNPQRSTVWXYZ';
    result text := '';
BEGIN
    FOR i IN 1..10 LOOP
        result := substr(symbols, (ms % 32)::int + 1, 1) || result;
        ms := ms / 32;
    END LOOP;
    RETURN result;
END $$;

-- Returns the patterns that match an event type: the type, each of its prefixes with '.*', and '*'.
CREATE FUNCTION spine.patterns_met(p_type text) RETURNS text[]
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    words text[] := pg_catalog.string_to_array(p_type, '.');
    result text[] := ARRAY[p_type, '*'];
BEGIN
    FOR n IN 1..pg_catalog.cardinality(words) - 1 LOOP
        result := pg_catalog.array_append(result, pg_catalog.concat(pg_catalog.array_to_string(words[1:n], '.'), '.*'));
    END LOOP;
    RETURN result;
END $$;

-- Creates the day partitions of spine.events and spine.deliveries_closed from yesterday to p_days_ahead days ahead.
CREATE FUNCTION spine.partitions_ensure(p_days_ahead integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    parent record;
    first_day timestamptz := date_trunc('day', now(), 'UTC') - interval '1 day';
    day timestamptz;
    partition text;
    made integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('spine.partitions'));
    FOR parent IN VALUES ('events', 'evt_'), ('deliveries_closed', 'dlv_') LOOP
        FOR n IN 0..p_days_ahead + 1 LOOP
            day := first_day + make_interval(days => n);
            partition := format('%s_%s', parent.column1, to_char(day AT TIME ZONE 'UTC', 'YYYYMMDD'));
            CONTINUE WHEN to_regclass('spine.' || partition) IS NOT NULL;
            EXECUTE format('CREATE TABLE spine.%I PARTITION OF spine.%I FOR VALUES FROM (%L) TO (%L)', partition, parent.column1,
                           parent.column2 || spine.ulid_time(day), parent.column2 || spine.ulid_time(day + interval '1 day'));
            EXECUTE format('ALTER TABLE spine.%I ENABLE ROW LEVEL SECURITY', partition);
            EXECUTE format('ALTER TABLE spine.%I FORCE ROW LEVEL SECURITY', partition);
            made := made + 1;
        END LOOP;
    END LOOP;
    RETURN made;
END $$;

-- Drops the day partitions that end before p_before and returns their names. The default partitions stay.
CREATE FUNCTION spine.partitions_drop(p_before timestamptz) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    partition record;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('spine.partitions'));
    FOR partition IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent IN ('spine.events'::regclass, 'spine.deliveries_closed'::regclass)
           AND c.relname ~ '_[0-9]{8}$'
           AND to_date(right(c.relname, 8), 'YYYYMMDD')::timestamp AT TIME ZONE 'UTC' + interval '1 day' <= p_before
    LOOP
        EXECUTE format('DROP TABLE spine.%I', partition.relname);
        RETURN NEXT partition.relname;
    END LOOP;
END $$;

-- Inserts accepted events and their outbox rows in the caller's transaction. In plpgsql, which caches its plans: PostgreSQL
-- before 18 plans an SQL function at each call, which made accepting an event 1.5 times as expensive.
CREATE FUNCTION spine.events_put(p_ids text[], p_types text[], p_bodies bytea[], p_not_endpoint_ids text[] DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    INSERT INTO spine.events (workspace_id, id, type, body)
    SELECT current_setting('app.ws'), u.id, u.type, u.body FROM unnest(p_ids, p_types, p_bodies) AS u (id, type, body);
    INSERT INTO spine.outbox (workspace_id, event_id, type, not_endpoint_id)
    SELECT current_setting('app.ws'), u.id, u.type, u.not_endpoint_id
      FROM unnest(p_ids, p_types, p_not_endpoint_ids) AS u (id, type, not_endpoint_id);
END $$;

-- The end of a unit of work: inserts its events, and stores its response under the idempotency key.
CREATE FUNCTION spine.unit_finish(
    p_key text, p_status smallint, p_location text, p_body bytea, p_sealed boolean,
    p_ids text[], p_types text[], p_bodies bytea[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    IF cardinality(p_ids) > 0 THEN
        PERFORM spine.events_put(p_ids, p_types, p_bodies);
    END IF;
    IF p_key IS NOT NULL THEN
        UPDATE spine.idempotency_keys SET status = p_status, location = p_location, body = p_body, sealed = p_sealed
         WHERE workspace_id = current_setting('app.ws') AND key = p_key;
    END IF;
END $$;

-- All of POST /v1/events in one round trip: claims the key, inserts events and outbox rows. The response is rendered from the events.
CREATE FUNCTION spine.events_accept(
    p_workspace_id text, p_event_types_version integer, p_key text, p_fingerprint bytea, p_keep interval,
    p_status smallint, p_location text, p_ids text[], p_types text[], p_bodies bytea[])
RETURNS TABLE (claimed boolean, fingerprint bytea, status smallint, location text, body bytea, sealed boolean, event_ids text[])
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM set_config('app.ws', p_workspace_id, true);
    IF p_event_types_version IS DISTINCT FROM (SELECT w.event_types_version FROM spine.workspaces w WHERE w.workspace_id = p_workspace_id) THEN
        RETURN;  -- the caller's cache of the registered types is stale: without a row it reads them again
    END IF;
    INSERT INTO spine.idempotency_keys AS k (workspace_id, key, fingerprint, status, location, event_ids, expires_at)
    VALUES (p_workspace_id, p_key, p_fingerprint, p_status, p_location, p_ids, now() + p_keep)
    ON CONFLICT (workspace_id, key) DO UPDATE
        SET fingerprint = EXCLUDED.fingerprint, status = EXCLUDED.status, location = EXCLUDED.location, body = NULL,
            sealed = false, event_ids = EXCLUDED.event_ids, created_at = now(), expires_at = EXCLUDED.expires_at
        WHERE k.expires_at <= now();
    IF FOUND THEN
        PERFORM spine.events_put(p_ids, p_types, p_bodies);
        RETURN QUERY SELECT true, p_fingerprint, p_status, p_location, NULL::bytea, false, p_ids;
    ELSE
        RETURN QUERY SELECT false, k.fingerprint, k.status, k.location, k.body, k.sealed, k.event_ids
            FROM spine.idempotency_keys k WHERE k.workspace_id = p_workspace_id AND k.key = p_key;
    END IF;
END $$;

-- Returns the approximate depth of the outbox, for backpressure: the range of its sequence, from both ends of an index.
CREATE FUNCTION spine.outbox_depth() RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
    SELECT coalesce((SELECT seq FROM spine.outbox ORDER BY seq DESC LIMIT 1) - (SELECT seq FROM spine.outbox ORDER BY seq LIMIT 1), 0)
$$;

-- Returns the public keys of one endpoint. Anyone with its id may read them: they are public.
CREATE FUNCTION spine.webhook_public_keys(p_endpoint_id text)
RETURNS TABLE (public_key text, created_at timestamptz, expires_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
    SELECT s.public_key, s.created_at, s.expires_at FROM spine.endpoint_secrets s
     WHERE s.endpoint_id = p_endpoint_id AND s.public_key IS NOT NULL AND (s.expires_at IS NULL OR s.expires_at > now())
     ORDER BY s.seq DESC
$$;
GRANT EXECUTE ON FUNCTION spine.events_put(text[], text[], bytea[], text[]) TO spine_app, spine_worker;
GRANT EXECUTE ON FUNCTION spine.unit_finish(text, smallint, text, bytea, boolean, text[], text[], bytea[]) TO spine_app;
REVOKE ALL ON FUNCTION spine.partitions_ensure(integer), spine.partitions_drop(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION spine.partitions_ensure(integer), spine.partitions_drop(timestamptz) TO spine_worker;
CREATE TABLE spine.events_default PARTITION OF spine.events DEFAULT;
CREATE TABLE spine.deliveries_closed_default PARTITION OF spine.deliveries_closed DEFAULT;
CREATE INDEX endpoint_secrets_by_endpoint ON spine.endpoint_secrets (endpoint_id) WHERE public_key IS NOT NULL;
ALTER TABLE spine.events_default ENABLE ROW LEVEL SECURITY;
ALTER TABLE spine.events_default FORCE ROW LEVEL SECURITY;
ALTER TABLE spine.deliveries_closed_default ENABLE ROW LEVEL SECURITY;
ALTER TABLE spine.deliveries_closed_default FORCE ROW LEVEL SECURITY;
SELECT spine.partitions_ensure(7);
"""


def upgrade() -> None:
    script(TABLES)
    script(
        compressed("spine.events", "body")
        + compressed("spine.deliveries_open", "attempts")
        + compressed("spine.deliveries_closed", "attempts")
    )
    everything = "SELECT, INSERT, UPDATE, DELETE"
    script(
        tenant_table("spine.event_types", app="SELECT, INSERT, UPDATE", worker="SELECT")
        + tenant_table("spine.events", app="SELECT, INSERT, UPDATE", worker="SELECT, INSERT")
        + tenant_table("spine.outbox", app="SELECT, INSERT", worker="SELECT, INSERT, UPDATE, DELETE")
        + tenant_table("spine.webhook_endpoints", app="SELECT, INSERT, UPDATE", worker="SELECT, UPDATE")
        + tenant_table("spine.endpoint_secrets", app="SELECT, INSERT, UPDATE, DELETE", worker="SELECT, DELETE")
        + tenant_table("spine.subscriptions", app="SELECT, INSERT, UPDATE", worker="SELECT")
        + tenant_table("spine.endpoint_health", app="SELECT, INSERT, UPDATE", worker=everything)
        + tenant_table("spine.deliveries_open", app=everything, worker=everything)
        + tenant_table("spine.deliveries_closed", app="SELECT, INSERT, DELETE", worker=everything)
        + tenant_table("spine.replays", app="SELECT, INSERT, UPDATE", worker="SELECT, UPDATE")
        + "GRANT SELECT ON spine.deliveries TO spine_app, spine_worker;"
    )
    script(FUNCTIONS + definer("spine.webhook_public_keys(text)") + definer("spine.outbox_depth()"))


def downgrade() -> None:
    script("""
        DROP VIEW spine.deliveries;
        DROP TABLE spine.replays, spine.deliveries_closed, spine.deliveries_open, spine.endpoint_health, spine.subscriptions,
            spine.endpoint_secrets, spine.webhook_endpoints, spine.outbox, spine.events, spine.event_types;
        DROP FUNCTION spine.webhook_public_keys, spine.outbox_depth, spine.events_accept, spine.unit_finish, spine.events_put,
            spine.partitions_drop, spine.partitions_ensure, spine.patterns_met, spine.ulid_time;
    """)
