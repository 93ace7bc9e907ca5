"""Revision 0001: roles, organisations, workspaces, API keys, users, idempotency keys, workers."""

from spine.kernel.migrations.tenancy import RESOURCE_COLUMNS, compressed, definer, script, tenant_table

revision = "0001"
down_revision = None

ROLES = """
DO $$
BEGIN
    -- An owner that may not create roles has been given them by an administrator.
    IF to_regrole('spine_app') IS NULL THEN
        BEGIN CREATE ROLE spine_app NOLOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END;
    END IF;
    IF to_regrole('spine_worker') IS NULL THEN
        BEGIN CREATE ROLE spine_worker NOLOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END;
    END IF;
    IF NOT (pg_has_role('spine_app', 'MEMBER') AND pg_has_role('spine_worker', 'MEMBER')) THEN
        EXECUTE format('GRANT spine_app, spine_worker TO %I', current_user);
    END IF;
EXCEPTION WHEN OTHERS THEN
    -- two databases of one cluster migrate at the same time: the other migration has made the grant
    IF SQLERRM NOT LIKE '%tuple concurrently updated%' THEN RAISE; END IF;
END $$;
CREATE SCHEMA spine;
GRANT USAGE ON SCHEMA spine TO spine_app, spine_worker;
"""

TABLES = f"""
CREATE TABLE spine.organisations (
    id text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    email text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE spine.workspaces (
    workspace_id text COLLATE "C" PRIMARY KEY,
    organisation_id text COLLATE "C" NOT NULL REFERENCES spine.organisations (id),
    env text NOT NULL CHECK (env IN ('test', 'live')),
    event_types_version integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (organisation_id, env)
);
CREATE TABLE spine.api_keys (
    workspace_id text COLLATE "C" NOT NULL REFERENCES spine.workspaces,
    id text COLLATE "C" NOT NULL,
    name text NOT NULL,
    scopes text[] NOT NULL,
    hash bytea NOT NULL UNIQUE,
    prefix text NOT NULL,
    last4 text NOT NULL,
    status text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'rolled', 'revoked')),
    last_used_at timestamptz,
    expires_at timestamptz,
    {RESOURCE_COLUMNS}
);
CREATE TABLE spine.users (
    workspace_id text COLLATE "C" NOT NULL REFERENCES spine.workspaces,
    id text COLLATE "C" NOT NULL,
    name text NOT NULL,
    email text NOT NULL,
    {RESOURCE_COLUMNS},
    UNIQUE (workspace_id, email)
);
CREATE TABLE spine.idempotency_keys (
    workspace_id text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    fingerprint bytea NOT NULL,
    status smallint,
    location text,
    body bytea,
    sealed boolean NOT NULL DEFAULT false,
    event_ids text[],
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (workspace_id, key)
) WITH (fillfactor = 90);
CREATE INDEX idempotency_keys_expires ON spine.idempotency_keys USING brin (expires_at) WITH (pages_per_range = 32, autosummarize = on);
COMMENT ON COLUMN spine.idempotency_keys.event_ids IS
    'Set instead of body if the response consists of accepted events: a replay renders it from spine.events, so an erased payload is not kept here.';
CREATE TABLE spine.workers (
    id text COLLATE "C" PRIMARY KEY,
    host text NOT NULL,
    pid integer NOT NULL,
    software_version text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now()
);
GRANT INSERT ON spine.organisations TO spine_app;
GRANT SELECT ON spine.organisations TO spine_app, spine_worker;
ALTER TABLE spine.organisations ENABLE ROW LEVEL SECURITY;
ALTER TABLE spine.organisations FORCE ROW LEVEL SECURITY;
CREATE POLICY sign_up ON spine.organisations FOR INSERT TO spine_app WITH CHECK (true);
CREATE POLICY own_organisation ON spine.organisations FOR SELECT TO spine_app USING (
    id = (SELECT w.organisation_id FROM spine.workspaces w WHERE w.workspace_id = current_setting('app.ws', true)));
CREATE POLICY every_organisation ON spine.organisations TO spine_worker USING (true);
GRANT SELECT ON spine.workers TO spine_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON spine.workers TO spine_worker;
"""

FUNCTIONS = """
-- Returns the owner of an API key before a workspace is known. Revoked and unknown keys return no row. In plpgsql, which
-- caches its plans: PostgreSQL before 18 plans an SQL function again at each call.
CREATE FUNCTION spine.key_find(p_hash bytea)
RETURNS TABLE (key_id text, workspace_id text, organisation_id text, env text, scopes text[], expires_at timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    RETURN QUERY
    SELECT k.id, k.workspace_id, w.organisation_id, w.env, k.scopes, k.expires_at
      FROM spine.api_keys k JOIN spine.workspaces w ON w.workspace_id = k.workspace_id
     WHERE k.hash = p_hash AND k.status <> 'revoked' AND (k.expires_at IS NULL OR k.expires_at > now());
END $$;

-- Records that keys were used, to the minute.
CREATE FUNCTION spine.keys_touch(p_ids text[]) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog AS $$
    UPDATE spine.api_keys SET last_used_at = now()
     WHERE id = ANY (p_ids) AND (last_used_at IS NULL OR last_used_at < now() - interval '30 s')
$$;

-- Claims an idempotency key for the current transaction (requirements P-06 to P-08). A second transaction with the same
-- key waits until the first one ends, at most lock_timeout. Expiry is checked here, not by the cleanup.
CREATE FUNCTION spine.idempotency_claim(p_workspace_id text, p_key text, p_fingerprint bytea, p_keep interval)
RETURNS TABLE (claimed boolean, fingerprint bytea, status smallint, location text, body bytea, sealed boolean, event_ids text[])
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    PERFORM set_config('app.ws', p_workspace_id, true);
    LOOP
        INSERT INTO spine.idempotency_keys AS k (workspace_id, key, fingerprint, expires_at)
        VALUES (p_workspace_id, p_key, p_fingerprint, now() + p_keep)
        ON CONFLICT (workspace_id, key) DO UPDATE
            SET fingerprint = EXCLUDED.fingerprint, status = NULL, location = NULL, body = NULL, sealed = false,
                event_ids = NULL, created_at = now(), expires_at = EXCLUDED.expires_at
            WHERE k.expires_at <= now();
        IF FOUND THEN
            RETURN QUERY SELECT true, p_fingerprint, NULL::smallint, NULL::text, NULL::bytea, false, NULL::text[];
            RETURN;
        END IF;
        RETURN QUERY SELECT false, k.fingerprint, k.status, k.location, k.body, k.sealed, k.event_ids
            FROM spine.idempotency_keys k WHERE k.workspace_id = p_workspace_id AND k.key = p_key;
        IF FOUND THEN RETURN; END IF;
    END LOOP;
END $$;
GRANT EXECUTE ON FUNCTION spine.idempotency_claim(text, text, bytea, interval) TO spine_app;
"""


def upgrade() -> None:
    script(ROLES + TABLES)
    script(
        tenant_table("spine.workspaces", app="SELECT, INSERT, UPDATE (event_types_version)", worker="SELECT")
        + tenant_table("spine.api_keys", app="SELECT, INSERT, UPDATE", worker="SELECT, UPDATE")
        + tenant_table("spine.users", app="SELECT, INSERT, UPDATE", worker="SELECT")
        + tenant_table("spine.idempotency_keys", app="SELECT, INSERT, UPDATE", worker="SELECT, DELETE")
        + compressed("spine.idempotency_keys", "body")
        + FUNCTIONS
        + definer("spine.key_find(bytea)")
        + definer("spine.keys_touch(text[])")
    )


def downgrade() -> None:
    # The roles belong to the cluster, whose other databases may use them: they stay.
    script("""
        DROP FUNCTION spine.idempotency_claim, spine.keys_touch, spine.key_find;
        DROP TABLE spine.workers, spine.idempotency_keys, spine.users, spine.api_keys, spine.workspaces, spine.organisations;
        DROP SCHEMA spine;
    """)
