"""Revision 0007: the outbox keeps how far a wide event is relayed, and its depth is counted by workspace."""

from spine.kernel.migrations.tenancy import definer, script

revision = "0007"
down_revision = "0006"

DEPTHS = """
-- Returns how many events of each workspace wait in the outbox, for backpressure. Reads at most 400 blocks of the table
-- and 20,000 rows, whatever waits: exact up to about 20,000 rows, and above them an estimate from a sample of the blocks.
CREATE FUNCTION spine.outbox_depths() RETURNS TABLE (workspace_id text, depth bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    blocks constant bigint := pg_relation_size('spine.outbox') / current_setting('block_size')::bigint;
    part constant float8 := least(1, 400.0 / greatest(blocks, 1));
    workspaces text[];
    depths bigint[];
BEGIN
    SELECT array_agg(s.workspace_id), array_agg(s.depth) INTO workspaces, depths
      FROM (SELECT o.workspace_id, (count(*) / part)::bigint AS depth
              FROM spine.outbox o TABLESAMPLE SYSTEM (100 * part) GROUP BY 1) s;
    IF part = 1 OR (SELECT sum(d) FROM unnest(depths) d) > 20000 THEN
        RETURN QUERY SELECT * FROM unnest(workspaces, depths);
    ELSE  -- few rows in a large table, as after a long backlog: a sample of its blocks says nothing of them
        RETURN QUERY SELECT o.workspace_id, count(*) FROM (SELECT o.workspace_id FROM spine.outbox o ORDER BY o.seq LIMIT 20000) o
                      GROUP BY 1;
    END IF;
END $$;
"""

DEPTH = """
-- Returns the approximate depth of the outbox, for backpressure: the range of its sequence, from both ends of an index.
CREATE FUNCTION spine.outbox_depth() RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $$
    SELECT coalesce((SELECT seq FROM spine.outbox ORDER BY seq DESC LIMIT 1) - (SELECT seq FROM spine.outbox ORDER BY seq LIMIT 1), 0)
$$;
"""


def upgrade() -> None:
    script("""
        ALTER TABLE spine.outbox ADD COLUMN after_endpoint_id text COLLATE "C";
        COMMENT ON COLUMN spine.outbox.after_endpoint_id IS
            'The deliveries to the endpoints up to this one are written; null while none is.';
        DROP FUNCTION spine.outbox_depth();
    """)
    script(DEPTHS + definer("spine.outbox_depths()"))


def downgrade() -> None:
    script("DROP FUNCTION spine.outbox_depths(); ALTER TABLE spine.outbox DROP COLUMN after_endpoint_id;")
    script(DEPTH + definer("spine.outbox_depth()"))
