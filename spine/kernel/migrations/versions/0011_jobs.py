"""Revision 0011: jobs of products, which are due at a time or when a message changes."""

from spine.kernel.migrations.tenancy import script, tenant_table

revision = "0011"
down_revision = "0010"

TABLES = """
CREATE TABLE spine.jobs (
    workspace_id text COLLATE "C" NOT NULL REFERENCES spine.workspaces,
    kind text COLLATE "C" NOT NULL,
    subject_id text COLLATE "C" NOT NULL,
    args jsonb NOT NULL DEFAULT '{}',
    due_at timestamptz NOT NULL,
    message_id text COLLATE "C",
    failures integer NOT NULL DEFAULT 0,
    error text,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, kind, subject_id)
);
CREATE INDEX jobs_due ON spine.jobs (due_at);
CREATE INDEX jobs_turns ON spine.jobs (workspace_id, due_at);
CREATE INDEX jobs_of_message ON spine.jobs (workspace_id, message_id) WHERE message_id IS NOT NULL;
GRANT EXECUTE ON FUNCTION spine.unit_finish(text, smallint, text, bytea, boolean, text[], text[], bytea[]) TO spine_worker;
"""

FUNCTIONS = """
-- Returns due jobs of all workspaces: the oldest ones.
CREATE FUNCTION spine.jobs_due(p_limit integer)
RETURNS TABLE (workspace_id text, kind text, subject_id text, organisation_id text, env text)
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    SELECT j.workspace_id, j.kind, j.subject_id, w.organisation_id, w.env
      FROM (SELECT * FROM spine.jobs WHERE due_at <= now() ORDER BY due_at LIMIT p_limit) j
      JOIN spine.workspaces w ON w.workspace_id = j.workspace_id
$$;

-- Returns due jobs in turn by workspace: up to p_each of each of the next p_workspaces workspaces that have jobs.
CREATE FUNCTION spine.jobs_in_turn(p_after text, p_workspaces integer, p_each integer)
RETURNS TABLE (workspace_id text, kind text, subject_id text, organisation_id text, env text, last_workspace_id text)
LANGUAGE sql STABLE SET search_path = pg_catalog AS $$
    WITH RECURSIVE turns AS (
        (SELECT j.workspace_id AS id, 1 AS n FROM spine.jobs j WHERE j.workspace_id > p_after ORDER BY j.workspace_id LIMIT 1)
        UNION ALL
        SELECT (SELECT j.workspace_id FROM spine.jobs j WHERE j.workspace_id > t.id ORDER BY j.workspace_id LIMIT 1), t.n + 1
          FROM turns t WHERE t.id IS NOT NULL AND t.n < p_workspaces
    )
    SELECT j.workspace_id, j.kind, j.subject_id, w.organisation_id, w.env, (SELECT max(id) FROM turns)
      FROM turns t
      LEFT JOIN LATERAL (
          SELECT * FROM spine.jobs j WHERE j.workspace_id = t.id AND j.due_at <= now() ORDER BY j.due_at LIMIT p_each
      ) j ON true
      LEFT JOIN spine.workspaces w ON w.workspace_id = j.workspace_id
     WHERE t.id IS NOT NULL
$$;
REVOKE ALL ON FUNCTION spine.jobs_due(integer), spine.jobs_in_turn(text, integer, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION spine.jobs_due(integer), spine.jobs_in_turn(text, integer, integer) TO spine_worker;

-- A job that waits for a message is due as soon as the message changes. A job that is being scheduled at this moment is
-- skipped, so that no send waits for it: it is due at its own time.
CREATE FUNCTION spine.jobs_follow_messages() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    UPDATE spine.jobs SET due_at = now()
     WHERE ctid = ANY (ARRAY(
         SELECT j.ctid FROM changed c JOIN spine.jobs j ON j.workspace_id = c.workspace_id AND j.message_id = c.id
          WHERE j.due_at > now() FOR UPDATE OF j SKIP LOCKED));
    RETURN NULL;
END $$;
CREATE TRIGGER jobs_follow AFTER UPDATE ON spine.messages REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION spine.jobs_follow_messages();
"""


def upgrade() -> None:
    everything = "SELECT, INSERT, UPDATE, DELETE"
    script(TABLES + tenant_table("spine.jobs", app=everything, worker=everything) + FUNCTIONS)


def downgrade() -> None:
    script("""
        DROP TRIGGER jobs_follow ON spine.messages;
        DROP FUNCTION spine.jobs_follow_messages, spine.jobs_in_turn, spine.jobs_due;
        REVOKE EXECUTE ON FUNCTION spine.unit_finish(text, smallint, text, bytea, boolean, text[], text[], bytea[]) FROM spine_worker;
        DROP TABLE spine.jobs;
    """)
