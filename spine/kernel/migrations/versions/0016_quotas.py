"""Revision 0016: quotas of messages, counted in the transactions that accept, send and end messages."""

from spine.kernel.migrations.tenancy import RESOURCE_COLUMNS, script, tenant_table

revision = "0016"
down_revision = "0015"

TABLE = f"""
CREATE TABLE spine.quotas (
    workspace_id text COLLATE "C" NOT NULL REFERENCES spine.workspaces,
    id text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL CHECK (name IN ('messages')),
    "limit" bigint NOT NULL CHECK ("limit" > 0),
    period text COLLATE "C" NOT NULL CHECK (period IN ('day', 'month')),
    used bigint NOT NULL DEFAULT 0 CHECK (used >= 0),
    thresholds smallint[] NOT NULL DEFAULT '{{80,100}}',
    told smallint NOT NULL DEFAULT 0,
    resets_at timestamptz NOT NULL,
    {RESOURCE_COLUMNS},
    CONSTRAINT quotas_name UNIQUE (workspace_id, name)
);
COMMENT ON COLUMN spine.quotas.told IS 'The highest threshold that has been told of in this period; 0 for none.';
COMMENT ON COLUMN spine.quotas.resets_at IS 'The end of the period in which "used" was counted.';
"""

FUNCTIONS = """
-- Returns the end of the present day or month, in UTC.
CREATE FUNCTION spine.quota_period_end(p_period text) RETURNS timestamptz LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT (date_trunc(p_period, now() AT TIME ZONE 'UTC') + ('1 ' || p_period)::interval) AT TIME ZONE 'UTC'
$$;

-- Adds to what is used of a workspace's quota, begins a new period where the last one has ended, and schedules
-- `quota.threshold` once for each threshold that is crossed. With p_bounded it raises SP429 rather than go beyond the limit.
-- A workspace without this quota is not bounded. What was counted in an earlier period (p_since) is not given back.
CREATE FUNCTION spine.quota_add(p_workspace_id text, p_name text, p_n bigint, p_bounded boolean, p_since timestamptz)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    q spine.quotas;
    v_told smallint;
BEGIN
    SELECT * INTO q FROM spine.quotas WHERE workspace_id = p_workspace_id AND name = p_name FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF q.resets_at <= now() THEN
        q.used := 0;
        q.told := 0;
        q.resets_at := spine.quota_period_end(q.period);
    END IF;
    IF p_n < 0 AND p_since < q.resets_at - ('1 ' || q.period)::interval THEN
        p_n := 0;
    END IF;
    q.used := greatest(q.used + p_n, 0);
    IF p_bounded AND q.used > q.limit THEN
        RAISE EXCEPTION USING ERRCODE = 'SP429',
            MESSAGE = format('the quota of %s messages a %s is used up until %s', q.limit, q.period,
                             to_char(q.resets_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')),
            DETAIL = ceil(extract(epoch FROM q.resets_at - now()))::text;
    END IF;
    SELECT coalesce(max(t), 0) INTO v_told FROM unnest(q.thresholds) t WHERE q.used * 100 >= q.limit * t;
    INSERT INTO spine.jobs (workspace_id, kind, subject_id, args, due_at)
    SELECT q.workspace_id, 'quota.tell', q.id || ':' || t || ':' || extract(epoch FROM q.resets_at)::bigint,
           jsonb_build_object('id', q.id, 'threshold', t, 'used', q.used, 'limit', q.limit, 'period', q.period, 'resets_at', q.resets_at),
           now()
      FROM unnest(q.thresholds) t WHERE t > q.told AND t <= v_told
    ON CONFLICT (workspace_id, kind, subject_id) DO UPDATE SET args = EXCLUDED.args, due_at = now();
    UPDATE spine.quotas SET used = q.used, told = greatest(q.told, v_told), resets_at = q.resets_at
     WHERE workspace_id = q.workspace_id AND id = q.id;
END $$;

-- Each accepted message takes one of its workspace's quota: all of a request or none.
CREATE FUNCTION spine.quotas_count_accepted() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM spine.quota_add(a.workspace_id, 'messages', a.n, true, NULL)
       FROM (SELECT workspace_id, count(*) AS n FROM added GROUP BY workspace_id ORDER BY workspace_id) a;
    RETURN NULL;
END $$;
CREATE TRIGGER quotas_count AFTER INSERT ON spine.messages REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION spine.quotas_count_accepted();

-- A message that ends without having been sent gives its one back. One that turns out to be sent after all takes it again.
CREATE FUNCTION spine.quotas_count_ended() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM spine.quota_add(c.workspace_id, 'messages', c.n, false, c.since) FROM (
        SELECT a.workspace_id, a.created_at AS since, CASE WHEN b.ended_at IS NULL THEN -1 ELSE 1 END AS n
          FROM before b JOIN after a ON a.workspace_id = b.workspace_id AND a.id = b.id
         WHERE b.sent_at IS NULL
           AND ((b.ended_at IS NULL AND a.ended_at IS NOT NULL AND a.sent_at IS NULL) OR (b.ended_at IS NOT NULL AND a.sent_at IS NOT NULL))
         ORDER BY a.workspace_id) c;
    RETURN NULL;
END $$;
CREATE TRIGGER quotas_count_ended AFTER UPDATE ON spine.messages REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION spine.quotas_count_ended();

-- Each further attempt that a provider accepts for one message takes one more.
CREATE FUNCTION spine.quotas_count_attempts() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM spine.quota_add(c.workspace_id, 'messages', c.n, false, NULL) FROM (
        SELECT a.workspace_id, count(*) AS n FROM before b JOIN after a ON a.workspace_id = b.workspace_id AND a.id = b.id
         WHERE b.accepted_at IS NULL AND a.accepted_at IS NOT NULL
           AND EXISTS (SELECT FROM spine.attempts o WHERE o.workspace_id = a.workspace_id AND o.message_id = a.message_id
                          AND o.id <> a.id AND o.accepted_at IS NOT NULL)
         GROUP BY a.workspace_id ORDER BY a.workspace_id) c;
    RETURN NULL;
END $$;
CREATE TRIGGER quotas_count_attempts AFTER UPDATE ON spine.attempts REFERENCING OLD TABLE AS before NEW TABLE AS after
    FOR EACH STATEMENT EXECUTE FUNCTION spine.quotas_count_attempts();
"""


def upgrade() -> None:
    script(TABLE + tenant_table("spine.quotas", app="SELECT, INSERT, UPDATE", worker="SELECT, UPDATE") + FUNCTIONS)


def downgrade() -> None:
    script("""
        DROP TRIGGER quotas_count_attempts ON spine.attempts;
        DROP TRIGGER quotas_count_ended ON spine.messages;
        DROP TRIGGER quotas_count ON spine.messages;
        DROP FUNCTION spine.quotas_count_attempts, spine.quotas_count_ended, spine.quotas_count_accepted, spine.quota_add,
            spine.quota_period_end;
        DELETE FROM spine.jobs WHERE kind = 'quota.tell';
        DROP TABLE spine.quotas;
    """)
